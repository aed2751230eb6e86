package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/sshd/rescue"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/sshd/sshlog"
)

// Logins are the sockets on which an agent answers for its server; "" for none.
type Logins struct {
	PAM   string // for pam_postern
	Shell string // for the ForceCommand shell
}

// LoginSockets returns the sockets on which to answer: pam and, in the same directory, the
// shell's. Without pam they are this host's own where root runs the agent of a server on
// another host, and none otherwise.
func LoginSockets(pam string, otherHost bool) Logins {
	switch {
	case pam != "":
		return Logins{PAM: pam, Shell: filepath.Join(filepath.Dir(pam), "shell.sock")}
	case otherHost && os.Geteuid() == 0:
		return Logins{PAM: sshd.DefaultSocket, Shell: sshd.ShellSocket}
	}
	return Logins{}
}

// answerWithin is how long a question may take, all servers together. pam_postern waits
// for 10 s, so that it still gets the answer that nothing could be decided.
const answerWithin = 8 * time.Second

// shellQuestions is how many of the shell's questions are worked on at once: fewer than the
// server answers of one host, so that no user keeps sshd's from being answered.
const shellQuestions = 16

// spooled is the timeline as the parts around sshd write it on a host.
type spooled struct{ *reporter }

// Append implements [sshd.Recorder]. Which person an account belongs to is for the server
// to say, and what it checked itself it has recorded.
func (s spooled) Append(_ context.Context, events ...postern.Event) error {
	for _, e := range events {
		e.Person, e.Host = "", s.host
		e.Links = slices.DeleteFunc(slices.Clone(e.Links), func(l postern.Link) bool { return serverChecks(l.Kind) })
		s.event(e)
	}
	return nil
}

// serverChecks reports whether a link is to a credential that a server checks, and no
// host.
func serverChecks(kind string) bool {
	return slices.Contains([]postern.CredentialKind{
		postern.YubiKey, postern.TOTP, postern.HOTP, postern.BackupCode, postern.RecoveryCode, postern.X509Certificate,
	}, postern.CredentialKind(kind))
}

// startLogins answers pam_postern and the shell, and follows sshd's log, until stop is
// called.
func (c Config) startLogins(ctx context.Context, report *reporter) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	stop = func() { cancel(); running.Wait() }
	check, err := c.startUpdates(ctx, &running, report)
	if err != nil {
		stop()
		return nil, err
	}
	for _, each := range []struct {
		path string
		mode os.FileMode
		cfg  socket.Config
	}{
		{c.Logins.PAM, 0o600, socket.Config{}},
		{c.Logins.Shell, 0o666, socket.Config{Users: true, Conns: shellQuestions}},
	} {
		if each.path == "" {
			continue
		}
		each.cfg.Host, each.cfg.Timeout = c.Host, answerWithin
		server, err := socket.NewServer(each.cfg, check, spooled{report}, c.Log)
		if err == nil {
			l, lerr := socket.Listen(each.path, each.mode)
			if err = lerr; err == nil {
				running.Go(func() {
					if err := server.Serve(ctx, l); err != nil {
						c.Log.Error("sshd's questions are not answered any more", slog.Any(postern.LogError, err))
					}
				})
			}
		}
		if err != nil {
			stop()
			return nil, err
		}
	}
	c.followSSHD(ctx, &running, report)
	a := auditor{
		Config: c, report: report, findings: newFindings(), last: filepath.Join(c.Spool.Dir, "audit.last"),
		audit: audit.Auditor{}.Audit,
	}
	running.Go(func() { a.run(ctx, judged) })
	if c.Follow != nil {
		running.Go(func() { c.Follow(ctx, c.Target.Client, c.Target.Base, a.findings.lines, c.Log) })
	}
	return stop, nil
}

// startUpdates takes the server's updates until ctx ends, and returns who decides about
// logins: the server, or while none answers, the rescue codes of this host.
func (c Config) startUpdates(ctx context.Context, running *sync.WaitGroup, report *reporter) (sshd.Checker, error) {
	ask := remote.Client{URL: c.Target.Base, HTTP: c.client()}
	seen, err := openMemory(filepath.Join(c.Spool.Dir, "checkpoint"), c.Log)
	if err != nil {
		return nil, err
	}
	codes := &rescue.File{Path: filepath.Join(c.Spool.Dir, "rescue.json")}
	running.Go(func() { c.keepWatching(ctx, ask, seen, codes, report) })
	server := trusting{&oneTrip{Checker: ask}, seen}
	return &rescue.Checker{Server: server, Codes: codes, Record: spooled{report}, Log: c.Log}, nil
}

// followSSHD reports the logins in sshd's log.
func (c Config) followSSHD(ctx context.Context, running *sync.WaitGroup, report *reporter) {
	lines := make(chan sshlog.Line)
	nobody := func(context.Context, string) string { return "" } // the server knows
	running.Go(func() {
		sshlog.Watcher{Record: spooled{report}, Person: nobody, Log: c.Log, Host: c.Host}.Watch(ctx, lines)
	})
	running.Go(func() {
		sshlog.Follow(ctx, lines, false, func(lost error) {
			e := postern.Event{
				Time: time.Now().UTC(), Kind: postern.EventSSHLog, Outcome: postern.OK, Host: c.Host, Object: c.Host,
			}
			if lost != nil {
				e.Outcome, e.Reason = postern.Failed, lost.Error()
				c.Log.Warn("sshd's log is not followed", slog.Any(postern.LogError, lost))
			}
			report.event(e)
		})
	})
}

var _ sshd.Recorder = spooled{}
