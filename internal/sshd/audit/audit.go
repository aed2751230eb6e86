// Package audit says what is wrong with two-factor SSH on a host: it asks sshd
// what holds for each kind of connection, tries every way through PAM's stack, and
// names the line behind each way in that needs less than two factors. It changes
// nothing.
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/process"
)

// Auditor looks for what is wrong with two-factor SSH on a host. The zero
// value audits this one; sshd wants root for it.
type Auditor struct {
	// Root is a directory to audit the files below, as of an image; empty means /. The
	// sshd that is there is asked, without privileges and with the directory as its
	// root; where there is none that runs, this host's.
	Root string
	// Config is sshd's; empty means that of the sshd that runs, with the options
	// that it was started with, else /etc/ssh/sshd_config.
	Config string
	SSHD   []string // this host's sshd command; empty means sshd from /usr/sbin
	// Service is the PAM service; empty means what sshd's configuration says,
	// else sshd.
	Service string
	// Clock returns how wrong the clock is, for codes that depend on it; nil
	// asks the kernel.
	Clock func() Clock
	// TimeCodes reports whether an account behind pam_postern has an authenticator
	// that makes codes by time; nil, or an error, means that this is unknown.
	TimeCodes func(ctx context.Context) (bool, error)

	// UserCA returns what is known of this host's own authority for SSH user certificates;
	// nil, or an error, means that nothing is.
	UserCA func(ctx context.Context) (*UserCA, error)

	patience time.Duration // for an answer of sshd or NSS; 0 means 20 s
}

// Clock is what is known of a clock.
type Clock struct {
	Synchronized bool
	Offset       time.Duration // at most; 0 if it is not known
}

// audit is one run.
type audit struct {
	*host
	Report
	directives []hostconf.Directive
	accounts   []account
	stack      []hostconf.PAMLine
	accesses   []access
	userCA     *UserCA // nil if nothing is known
	config     string
	service    string
	port       string
}

// Audit returns what is wrong. It changes nothing. It fails with
// postern.Unavailable where there is no sshd to ask, postern.Denied for who is
// not root, and postern.NotFound without a configuration.
func (a Auditor) Audit(ctx context.Context) (*Report, error) {
	if os.Geteuid() != 0 {
		return nil, postern.Errorf(postern.Denied, "sshd prints its configuration for root only").
			WithHint("run it as root")
	}
	run := &audit{config: cmp.Or(a.Config, hostconf.ConfigFile), service: a.Service}
	if err := run.open(ctx, a); err != nil {
		return nil, err
	}
	defer run.close()
	run.patience = a.patience
	if a.UserCA != nil {
		run.userCA, _ = a.UserCA(ctx) // without it nothing is known
	}
	if err := run.gather(ctx); err != nil {
		return nil, err
	}
	run.judgeAccounts()
	run.judgeAccesses()
	run.judgeUntried()
	run.judgeChannels()
	run.judgeValidation()
	run.judgeFiles()
	run.judgeSELinux()
	clock := a.Clock
	if clock == nil {
		clock = kernelClock
	}
	run.judgeClock(clock, a.timeCodes(ctx))
	run.sort()
	return &run.Report, nil
}

// open finds the sshd to ask, and reads its configuration.
func (a *audit) open(ctx context.Context, as Auditor) error {
	sshd := slices.Clone(as.SSHD)
	if len(sshd) == 0 {
		sshd = []string{hostconf.Program}
	}
	files := hostconf.Files{Root: as.Root}
	var err error
	if as.Root != "" {
		if files.Root, err = filepath.Abs(as.Root); err != nil {
			return err
		}
		if a.directives, err = files.Directives(a.config); err != nil {
			return hostconf.ConfigError(err)
		}
		a.host, err = hostBelow(ctx, files, a.config, sshd)
		return err
	}
	if _, err := exec.LookPath(sshd[0]); err != nil {
		return postern.Errorf(postern.Unavailable, "there is no %s to ask", sshd[0]).
			WithHint("install OpenSSH's server")
	}
	sshd = append(sshd, "-f", a.config)
	if as.Config == "" && len(as.SSHD) == 0 {
		a.asRunning(&sshd)
	}
	a.host = thisHost(sshd)
	if a.directives, err = files.Directives(a.config); err != nil {
		return hostconf.ConfigError(err)
	}
	return nil
}

// asRunning takes the command and the configuration of the sshd that runs, and
// records others that run beside it with another.
func (a *audit) asRunning(sshd *[]string) {
	pids, _ := process.Listeners()
	first := 0
	for _, pid := range pids {
		command, file, err := process.Command(process.File(pid, "cmdline"))
		switch {
		case err != nil || slices.Equal(command, *sshd) && first > 0:
		case first == 0:
			first, *sshd, a.config = pid, command, file
		default:
			a.add(Finding{
				ID:       "another-sshd",
				Severity: Low,
				Title:    fmt.Sprintf("process %d is another sshd, which was not audited", pid),
				Where: hostconf.Line{
					File: file,
					Text: strings.Join(command, " "),
				},
				Proof: fmt.Sprintf("ps %d", pid),
				Fix:   "audit it by its configuration " + file,
			})
		}
	}
}

func (a *audit) gather(ctx context.Context) error {
	i := slices.IndexFunc(a.directives, func(d hostconf.Directive) bool {
		return d.Keyword == "pamservicename" && len(d.Args) > 0
	})
	if a.service == "" {
		a.service = "sshd"
		if i >= 0 {
			a.service = a.directives[i].Args[0]
		}
	}
	var err error
	a.stack, err = a.PAMStack(a.service, "auth")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without one PAM denies
		return postern.Errorf(postern.Invalid, "PAM's stack for %s cannot be judged: %w", a.service, err).
			WithHint("write the file differently")
	}
	p, named := patternsOf(a.directives), patternsOf(a.directives)
	named.addPAM(a.stack)
	a.accounts = accountsOf(ctx, a.host, named.names("user"), named.names("group"))
	a.accounts = append(a.accounts, a.unlisted(p)...)
	a.readKeys()
	if a.userCA != nil {
		for i := range a.accounts {
			a.accounts[i].certificates = a.userCA.grants(a.accounts[i].name, false)
		}
	}
	tried, all := cases(p, a.accounts, a.stack, a.service)
	if !all {
		a.add(Finding{
			ID:       "not-all-tried",
			Severity: High,
			opens:    true,
			Title: fmt.Sprintf("sshd's rules tell more than %d kinds of connection apart: not all were tried",
				casesMax),
			Where: hostconf.Line{
				File: a.config,
			},
			Proof: "sshd -T -C user=USER,host=HOST,addr=ADDRESS",
			Fix:   "use fewer users, groups and addresses in Match blocks",
		})
	}
	for _, c := range tried {
		s, err := a.effective(ctx, c)
		if err != nil {
			return a.blame(err)
		}
		d := newAccess(c, s, a.stack, a.keysFor(c))
		d.certificates = a.certificates(c, s)
		d.methods = a.directive(c, "authenticationmethods")
		a.accesses = append(a.accesses, d)
		a.port = s.first("port")
	}
	a.Cases = len(a.accesses)
	return nil
}

// keysFor returns what is known of the keys of a connection's account.
func (a *audit) keysFor(c hostconf.Case) *keys {
	if i := slices.IndexFunc(a.accounts, func(acc account) bool { return acc.name == c.User }); i >= 0 {
		return a.accounts[i].keys
	}
	return nil
}

// unlisted returns an account for each group that sshd's rules name, but no file of
// the host, and of which no member is known: a directory's.
func (a *audit) unlisted(p patterns) []account {
	file, _ := a.Read("/etc/group")
	local := firstFields(string(file))
	var out []account
	for _, pattern := range p["group"] {
		known := func(group string) bool { return hostconf.Wildcard(pattern, group) }
		member := func(acc account) bool { return slices.ContainsFunc(acc.groups, known) }
		if !slices.ContainsFunc(local, known) && !slices.ContainsFunc(a.accounts, member) {
			group := someName(pattern)
			out = append(out, account{name: "member-of-" + group, UID: -1, groups: []string{group}})
		}
	}
	return out
}

// effective returns what is in force for a connection: as sshd says, but for a
// member of a group that this host has no account of. Then sshd says what is in force for
// accounts outside the group, and the blocks that it leaves out are applied to that.
func (a *audit) effective(ctx context.Context, c hostconf.Case) (settings, error) {
	s, err := a.settings(ctx, c)
	if err != nil || c.UID >= 0 || len(c.Groups) == 0 {
		return s, err
	}
	set := map[string]bool{}
	for _, d := range a.directives {
		if d.Match != nil && d.Keyword != "match" && d.Applies(c) && !set[d.Keyword] {
			set[d.Keyword] = true
			s[d.Keyword] = []string{strings.Join(d.Args, " ")}
		}
	}
	return s, nil
}

// blame adds the line that makes sshd refuse its configuration, where sshd names
// none.
func (a *audit) blame(err error) error {
	line, ok := a.Blame(a.config, err.Error())
	if !ok {
		return err
	}
	return postern.Errorf(postern.CodeOf(err), "%s: %w", line, err).
		WithHint("change or remove line %d of %s: the first line that sshd reads takes effect", line.Line, line.File)
}

// directive returns the line that decides keyword for a connection: the first
// in a Match block that holds, else the first outside of any; nil for none.
func (a *audit) directive(c hostconf.Case, keyword string) *hostconf.Directive {
	var global *hostconf.Directive
	for i := range a.directives {
		d := &a.directives[i]
		switch {
		case d.Keyword != keyword:
		case d.Match == nil && global == nil:
			global = d
		case d.Match != nil && d.Applies(c):
			return d
		}
	}
	return global
}

// setBy returns the line that decides keyword, or says that it is the default.
func (a *audit) setBy(d access, keyword string) hostconf.Line {
	if l := a.directive(d.c, keyword); l != nil {
		return l.Line
	}
	return hostconf.Line{File: a.config, Text: "(not set) " + keyword + " " + d.s.first(keyword)}
}
