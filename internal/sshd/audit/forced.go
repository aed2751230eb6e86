package audit

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
	"golang.org/x/crypto/ssh"
)

// opening is what a login opens where sshd runs one command, whatever the client
// asks for.
type opening struct {
	what     string // in words
	severity Severity
	sftp     bool
	beside   *Finding // a channel that is open beside the command; may be nil
}

// opens returns what a way in opens; nil means everything.
func (a *audit) opens(d access, p path) *opening {
	commands, forwards := d.forced(p)
	if len(commands) == 0 {
		return nil
	}
	o := &opening{severity: Medium}
	var words []string
	for _, command := range commands {
		what, severity := confines(command, d.s.first("chrootdirectory"))
		if strings.HasPrefix(command, "internal-sftp") && !d.s.hasSubsystem("sftp") {
			what, severity = "nothing, since sshd has no Subsystem sftp", Medium // session.c: SUBSYSTEM_INT_SFTP_ERROR
		}
		if severity == Critical {
			return nil
		}
		if severity == High {
			o.severity = High
		}
		o.sftp = o.sftp || strings.HasPrefix(what, "SFTP") && strings.HasPrefix(command, "internal-sftp")
		words = append(words, what)
	}
	o.what = strings.Join(words, " and ")
	for _, f := range a.channelsBeside(d) {
		if f.ID == "gate-environment" {
			return nil // the account's shell runs the command
		}
		forwarding := slices.Contains([]string{"gate-tcp-forwarding", "gate-tcp-listening", "gate-socket-forwarding"},
			f.ID)
		if forwarding && forwards || f.ID == "gate-tunnel" {
			o.severity, o.beside = Critical, &f
			o.what += "; beside it " + strings.TrimSuffix(f.Title, " before the code")
			return o
		}
	}
	return o
}

// sftpInit is the client's first packet of SFTP, and sftpVersion the server's
// (draft-ietf-secsh-filexfer-02), which speaks version 3.
const (
	sftpInit    = "\x00\x00\x00\x05\x01\x00\x00\x00\x03"
	sftpVersion = "\x02\x00\x00\x00\x03"
)

// limited says in a finding what a forced command opens, and proves that.
func (a *audit) limited(d access, p path, f Finding, o *opening) Finding {
	if o == nil {
		return f
	}
	if slices.Index(severities, o.severity) > slices.Index(severities, f.Severity) {
		f.Severity = o.severity
	}
	if !strings.Contains(f.Title, o.what) {
		f.Title += "; it opens " + o.what
	}
	if d.s.first("forcecommand") != "none" {
		f.Fix += " or above its ForceCommand"
	}
	switch {
	case o.beside != nil:
		f.Proof = a.ssh(d, p, o.beside.try.args...)
		f.try = proveChannel(d, p, o.beside.try.want, o.beside.try.args...)
	case o.sftp:
		f.Proof = "echo ls | " + strings.NewReplacer("ssh -o", "sftp -b - -o", " -p ", " -P ").Replace(a.ssh(d, p))
		f.try = probe{
			user: d.c.User, methods: p.preferred(), args: []string{"-s"}, command: []string{"sftp"},
			stdin: sftpInit, want: sftpVersion,
		}
	default:
		f.Proof = a.ssh(d, p, "-v") + " 2>&1 | grep Authenticated"
		f.try = proveChannel(d, p, "Authenticated to ", "-v")
	}
	return f
}

// forced returns the commands that sshd runs for a way in, whatever the client asks
// for, and whether it forwards for it; none if it runs what the client asks for.
func (d access) forced(p path) (commands []string, forwards bool) {
	if command := d.s.first("forcecommand"); command != "" && command != "none" {
		return []string{command}, true
	}
	byKey := len(p.methods) == 1 && p.methods[0] == "publickey" && d.s.is("authorizedkeyscommand", "none")
	if !byKey || d.certificates == nil {
		return nil, false
	}
	k := d.certificates.and(d.keys)
	if k.open && !(d.c.UID == 0 && d.s.is("permitrootlogin", "forced-commands-only")) {
		return nil, false
	}
	return k.commands, k.forwards
}

// unseen says what may confine a login to a command where nothing does that can be
// seen: the force-command of another CA's certificate, or what a program prints of keys. It
// is "" where nothing may, or a key or certificate opens everything anyway.
func (d access) unseen(p path) string {
	if !p.byKey() || len(p.methods) > 1 || d.keys != nil && d.keys.open ||
		d.certificates != nil && d.certificates.open {
		return ""
	}
	var from []string
	if d.certificates == nil {
		from = append(from, "the certificate, by a CA in "+d.s.first("trustedusercakeys")+",")
	}
	if program := d.s.first("authorizedkeyscommand"); program != "" && program != "none" {
		from = append(from, "the key, printed by "+program+",")
	}
	if len(from) == 0 {
		return ""
	}
	return ", unless " + strings.Join(from, " or ") + " names a command, which cannot be seen here"
}

// confined are programs that serve what they are given and nothing else, by name: the
// option that confines them to a directory, "" if they always are, and what they
// open.
var confined = map[string]struct{ option, what string }{
	"rrsync":           {"", "rsync of a directory"},
	"git-shell":        {"", "git repositories"},
	"gitolite-shell":   {"", "git repositories"},
	"gitlab-shell":     {"", "git repositories"},
	"git-receive-pack": {"", "a git repository"},
	"git-upload-pack":  {"", "a git repository"},
	"borg":             {"--restrict-to-", "borg repositories"},
	"svnserve":         {"-t", "Subversion repositories"},
	"hg-ssh":           {"", "Mercurial repositories"},
	"true":             {"", "nothing"},
	"false":            {"", "nothing"},
	"nologin":          {"", "nothing"},
}

// givesShell finds a command that runs what the client sends, or others.
var givesShell = regexp.MustCompile(`SSH_ORIGINAL_COMMAND|\b(su|sudo|login|screen|tmux|env|eval|exec)\b|[;&|` + "`" +
	`]|\$\(`)

// shellName finds the names of shells.
var shellName = regexp.MustCompile(`^r?(ba|da|z|k|c|tc|fi|a|mk)?sh$`)

func (s settings) hasSubsystem(name string) bool {
	return slices.ContainsFunc(s["subsystem"], func(v string) bool { return strings.HasPrefix(v, name+" ") })
}

// changesDirectory finds what often stands before a command.
var changesDirectory = regexp.MustCompile(`^cd [^;&|$]+(;|&&) *`)

// ofTheSystem finds programs that no user installed.
var ofTheSystem = regexp.MustCompile(`^/(usr/(local/)?|opt/[^/]+/)?s?bin/|^/usr/(lib|libexec|share)/`)

// confines says what a forced command opens, and how much that is: Critical for
// everything.
func confines(command, chroot string) (what string, severity Severity) {
	command = changesDirectory.ReplaceAllString(command, "")
	words := strings.Fields(command)
	if len(words) == 0 {
		return "", Critical
	}
	name := filepath.Base(words[0])
	known, ok := confined[name]
	ok = ok && (name == words[0] || ofTheSystem.MatchString(words[0]))
	switch {
	case name == "internal-sftp" || name == "sftp-server":
		if chroot == "" || chroot == "none" || filepath.Clean(chroot) == "/" {
			return "SFTP with all of the account's files", High
		}
		if name == "internal-sftp" {
			return "SFTP below " + chroot, Medium
		}
		return "SFTP below " + chroot, High // whose program is a file there
	case givesShell.MatchString(command), shellName.MatchString(name):
		return "", Critical
	case ok && strings.Contains(command, known.option):
		return known.what + " (" + words[0] + ")", Medium
	}
	return "the command " + words[0], High // which may be more than it seems
}

// keys are what an account's authorized_keys open.
type keys struct {
	commands []string // that keys name, each once
	forwards bool     // some key that names a command may forward
	open     bool     // some key names none
	// untouched are the lines of security keys that need not be touched.
	untouched []hostconf.Line
}

// accountsRead bounds for how many accounts the keys are read.
const accountsRead = 2000

// readKeys notes for each account what its keys open.
func (a *audit) readKeys() {
	var patterns []string
	for _, d := range a.directives {
		if d.Keyword == "authorizedkeysfile" {
			patterns = append(patterns, d.Args...)
		}
	}
	if len(patterns) == 0 {
		patterns = []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}
	}
	for i := range a.accounts[:min(len(a.accounts), accountsRead)] {
		if acc := &a.accounts[i]; acc.home != "" && acc.mayLogIn() {
			acc.keys = a.keysOf(*acc, patterns)
		}
	}
}

// keysOf returns what the keys of an account open, nil if it has none.
func (a *audit) keysOf(acc account, patterns []string) *keys {
	k := &keys{}
	for _, pattern := range patterns {
		if pattern == "none" {
			continue
		}
		file := acc.keysFile(pattern)
		b, _ := a.Read(file)
		for i, line := range strings.Split(string(b), "\n") {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				k.add(line, hostconf.Line{File: file, Line: i + 1})
			}
		}
	}
	if len(k.commands) == 0 && !k.open {
		return nil
	}
	slices.Sort(k.commands)
	k.commands = slices.Compact(k.commands)
	return k
}

// keysFile is the file that a pattern of AuthorizedKeysFile names.
func (a account) keysFile(pattern string) string {
	file := strings.NewReplacer("%h", a.home, "%u", a.name, "%U", fmt.Sprint(a.UID), "%%", "%").Replace(pattern)
	if !filepath.IsAbs(file) {
		file = filepath.Join(a.home, file)
	}
	return file
}

// add adds a line of authorized_keys. One that is not understood names no command.
func (k *keys) add(line string, at hostconf.Line) {
	_, _, options, _, err := ssh.ParseAuthorizedKey([]byte(line))
	command, forwards := "", true
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch strings.ToLower(name) {
		case "no-touch-required":
			k.untouched = append(k.untouched, at)
		case "command":
			value = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
			command = strings.ReplaceAll(value, `\"`, `"`)
		case "restrict", "no-port-forwarding":
			forwards = false
		case "port-forwarding":
			forwards = true
		}
	}
	if err != nil || command == "" {
		k.open = true
		return
	}
	k.commands, k.forwards = append(k.commands, command), k.forwards || forwards
}
