// Package shell is the ForceCommand that asks for a code before it becomes the
// user's shell, for hosts whose sshd cannot ask during authentication.
package shell

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/process"
	"golang.org/x/term"
)

// trustedIDs returns the public IDs of a user's YubiKeys, from a file of lines
// user:ID:ID. The user is the whole first field.
func trustedIDs(b []byte, user string) []string {
	var ids []string
	lines, _ := hostconf.Mappings(hostconf.MappingsFile, b)
	for _, m := range lines {
		if m.Account == user {
			ids = append(ids, m.IDs...)
		}
	}
	return ids
}

// Channel is something that a client can open although the shell still asks for
// the code.
type Channel struct {
	ID    string // as the audit names it; or sshd.ConfigUnreadable
	Title string
	Fix   string // what to write into sshd_config
}

// Shell is the ForceCommand that asks for a code before it becomes what sshd
// would have run. It is the best that can be done where sshd's own
// authentication cannot ask; see Auditor for what it cannot close.
type Shell struct {
	User        string // the account, as passwd knows the process's user
	Login       string // its shell; empty means /bin/sh
	Environ     []string
	TrustedKeys string // empty means /etc/yubikey_mappings
	// AnyKey leaves it to Validate to know whose key a code is of, without
	// the file of trusted keys.
	AnyKey bool
	// Validate decides whether a code is good, once.
	Validate func(ctx context.Context, code string) error
	// Open lists the channels that are open beside the shell; Accepted are the
	// identifiers of those that do not matter.
	Open     []Channel
	Accepted []string
	Debug    bool          // print each step on Stderr, but no code
	Timeout  time.Duration // to type the code, and again to check it; 0 means 60 seconds
	Stdin    *os.File
	Stdout   io.Writer
	Stderr   io.Writer
	// Log gets how it ended: refusals belong in the host's logs.
	Log func(ok bool, message string)
}

// Prompt is what the script of old asked.
const Prompt = "Please provide Yubi OTP: "

// CodeVariable may hold the code, for clients that leave no way to type one:
// ssh -o SetEnv=LC_POSTERN_OTP=… host command. Debian's sshd lets LC_* through.
const CodeVariable = "LC_POSTERN_OTP"

// Run asks for the code and checks it. When it returns without an error the
// process is to become Command.
func (s Shell) Run(ctx context.Context) error {
	err := s.run(ctx)
	message := "code accepted for " + s.User
	if err != nil {
		message = fmt.Sprintf("refused %s: %v", s.User, err)
	}
	if from, _, _ := strings.Cut(s.env("SSH_CONNECTION"), " "); from != "" {
		message += " from " + from
	}
	s.Log(err == nil, message)
	return err
}

// debug prints a step that succeeded, in the format of the old script.
func (s Shell) debug(format string, args ...any) {
	if s.Debug {
		fmt.Fprintf(s.Stderr, "\033[1;32m[i]\033[0;39m "+format+"\n", args...)
	}
}

func (s Shell) run(ctx context.Context) error {
	if err := s.refuseOpen(); err != nil {
		return err
	}
	for _, f := range s.Open {
		s.debug("open beside this, and accepted: %s", f.ID)
	}
	var ids []string
	path := cmp.Or(s.TrustedKeys, hostconf.MappingsFile)
	if !s.AnyKey {
		b, err := hostconf.ReadTrusted(path)
		if err != nil {
			return err
		}
		if ids = trustedIDs(b, s.User); len(ids) == 0 {
			return postern.Errorf(postern.Denied, "%s lists no key for %s", path, s.User)
		}
		for _, id := range ids {
			s.debug("%s has for %s the key %s", path, s.User, id)
		}
	}
	code, err := s.code(ctx)
	if err != nil {
		return err
	}
	code = strings.TrimSpace(code)
	if !s.AnyKey && !slices.ContainsFunc(ids, func(id string) bool {
		return len(code) == len(id)+32 && strings.EqualFold(code[:len(id)], id)
	}) {
		return postern.Errorf(postern.Denied, "the code is of no key that is trusted for %s", s.User)
	}
	s.debug("the code has %d characters and is of a key that may be used: asking whether it is right", len(code))
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	err = s.Validate(ctx, code)
	if err == nil {
		s.debug("the code is right")
	}
	return err
}

func (s Shell) timeout() time.Duration {
	if s.Timeout == 0 {
		return time.Minute
	}
	return s.Timeout
}

// refuseOpen refuses where sshd leaves a channel open beside the shell.
func (s Shell) refuseOpen() error {
	var names, fixes []string
	for _, f := range s.Open {
		if slices.Contains(s.Accepted, f.ID) {
			continue
		}
		if f.ID == sshd.ConfigUnreadable {
			return postern.Errorf(postern.Denied, "%s", f.Title).WithHint("%s; or accept that by its name, %s",
				f.Fix, f.ID)
		}
		names, fixes = append(names, f.ID), append(fixes, f.Fix)
	}
	if len(names) == 0 {
		return nil
	}
	return postern.Errorf(postern.Denied, "sshd leaves open what no code guards: %s", strings.Join(names, ", ")).
		WithHint("in sshd_config, for whom this ForceCommand is: %s; or accept them by their names, %s",
			strings.Join(fixes, "; "), strings.Join(names, ","))
}

// env returns the value of a variable, or "".
func (s Shell) env(name string) string {
	for _, kv := range s.Environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// code gets the code: from the variable, or from who types it.
func (s Shell) code(ctx context.Context) (string, error) {
	if code := s.env(CodeVariable); code != "" {
		return code, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	if term.IsTerminal(int(s.Stdin.Fd())) {
		return s.ask(ctx)
	}
	if carriesProtocol(s.env("SSH_ORIGINAL_COMMAND")) {
		return "", postern.Errorf(postern.Denied, "no code can be typed here").
			WithHint("give it with -o SetEnv=%s=CODE", CodeVariable)
	}
	fmt.Fprint(s.Stderr, Prompt) // standard output is the command's
	return readLine(ctx, s.Stdin)
}

// carriesProtocol reports whether the client speaks a protocol on the
// command's standard input, from the first byte on.
func carriesProtocol(command string) bool {
	first, rest, _ := strings.Cut(command, " ")
	switch filepath.Base(first) {
	case "sftp-server", "internal-sftp":
		return true
	case "scp", "rsync":
		return strings.Contains(rest, "-t") || strings.Contains(rest, "-f") || strings.Contains(rest, "--server")
	}
	return false
}

// Command returns what the process is to become: the user's shell as a login
// shell, or with the command that the client sent, as sshd runs it. The code is removed
// from its environment.
func (s Shell) Command() (path string, argv, environ []string) {
	path = s.Login
	if path == "" {
		path = "/bin/sh"
	}
	name := filepath.Base(path)
	environ = slices.DeleteFunc(slices.Clone(s.Environ), func(kv string) bool {
		return strings.HasPrefix(kv, CodeVariable+"=") || strings.HasPrefix(kv, "SSH_ORIGINAL_COMMAND=")
	})
	command := s.env("SSH_ORIGINAL_COMMAND")
	if command == "" {
		return path, []string{"-" + name}, environ
	}
	if first, rest, _ := strings.Cut(command, " "); first == "internal-sftp" {
		command = strings.TrimSpace(sftpServer() + " " + rest)
	}
	return path, []string{name, "-c", command}, environ
}

// sftpServer returns the program that does what sshd's internal-sftp does.
func sftpServer() string {
	for _, path := range []string{
		"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
		"/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server",
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "sftp-server"
}

// Disconnect ends the SSH connection that this process belongs to, with
// whatever else was opened on it: the sshd process that serves it, if that runs
// as the same user.
func Disconnect() {
	if pid, ok := process.SSHLogin(os.Getppid()); ok && process.User(pid) == os.Getuid() {
		if sshd, err := os.FindProcess(pid); err == nil {
			_ = sshd.Signal(syscall.SIGTERM)
		}
	}
}
