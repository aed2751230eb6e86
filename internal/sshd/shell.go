package sshd

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// ShellConfig is what /etc/yubikey_shell says: the assignments that the
// ForceCommand script of old read with "source". The zero value is the file's
// absence.
type ShellConfig struct {
	APIID       int64  // YUBICO_API_ID; 0: not set
	Debug       bool   // DEBUG=1
	TrustedKeys string // TRUSTED_KEYS_FILE; empty means /etc/yubikey_mappings
	URL         string // YUBICO_API_URL; ours: the validation service, https, or http on this host
	APIKey      string // YUBICO_API_KEY; ours: base64, to check the service's answers with
}

// ReadShellConfig reads the file, or the zero value if there is none. It must
// be nobody's to write but root's.
func ReadShellConfig(path string) (ShellConfig, error) {
	b, err := readTrusted(path)
	if errors.Is(err, os.ErrNotExist) {
		return ShellConfig{}, nil
	}
	if err != nil {
		return ShellConfig{}, err
	}
	return ParseShellConfig(b)
}

// ParseShellConfig reads the assignments. Nothing is executed: a line that is
// no plain assignment is an error.
func ParseShellConfig(b []byte) (ShellConfig, error) {
	var c ShellConfig
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		value, plain := unquote(value)
		if !ok || !plain {
			return c, postern.Errorf(postern.Invalid, "%s: %q is no plain assignment", shellConfigFile, name)
		}
		var err error
		switch name {
		case "YUBICO_API_ID":
			c.APIID, err = strconv.ParseInt(value, 10, 64)
		case "DEBUG":
			c.Debug = value == "1"
		case "TRUSTED_KEYS_FILE":
			c.TrustedKeys = value
		case "YUBICO_API_URL":
			c.URL = value
		case "YUBICO_API_KEY":
			c.APIKey = value
		}
		if err != nil || c.APIID < 0 {
			return c, postern.Errorf(postern.Invalid, "%s: %s is not a number", shellConfigFile, name)
		}
	}
	return c, nil
}

// unquote undoes the shell's quotes around a whole word, and reports whether it
// was one without expansions.
func unquote(s string) (string, bool) {
	s, comment, _ := strings.Cut(s, " #")
	_ = comment
	s = strings.TrimSpace(s)
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	return s, !strings.ContainsAny(s, "\"'`$\\;&|<> \t")
}

// readTrusted reads a file that only root can change.
func readTrusted(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o022 != 0 || st.Sys().(*syscall.Stat_t).Uid != 0 || st.Size() > fileMax {
		return nil, postern.Errorf(postern.Denied, "%s is not a file that only root can change", path).WithHint("chown root %s; chmod go-w %s", path, path)
	}
	return io.ReadAll(io.LimitReader(f, fileMax))
}

// trustedIDs returns the public IDs of a user's YubiKeys, from a file of lines
// user:ID:ID. The user is the whole first field.
func trustedIDs(b []byte, user string) []string {
	var ids []string
	for line := range strings.Lines(string(b)) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && name == user && name != "" {
			ids = append(ids, strings.FieldsFunc(rest, func(r rune) bool { return r == ':' })...)
		}
	}
	return ids
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
	// Open lists the channels that are open beside the shell, as Beside
	// returns them; Accepted are the identifiers of those that do not matter.
	Open     []Finding
	Accepted []string
	Debug    bool          // tell on Stderr what is found on the way, but no code
	Timeout  time.Duration // to type the code, and again to check it; 0 means 60 seconds
	Stdin    *os.File
	Stdout   io.Writer
	Stderr   io.Writer
	// Log hears how it ended: refusals belong into the host's logs.
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

// debug tells what went well, in the manner of the script of old.
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
	path := cmp.Or(s.TrustedKeys, mappingsFile)
	if !s.AnyKey {
		b, err := readTrusted(path)
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
	if !s.AnyKey && !slices.ContainsFunc(ids, func(id string) bool { return len(code) == len(id)+32 && strings.EqualFold(code[:len(id)], id) }) {
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
	var names, mends []string
	for _, f := range s.Open {
		if slices.Contains(s.Accepted, f.ID) {
			continue
		}
		if f.ID == unreadable {
			return postern.Errorf(postern.Denied, "%s", f.Title).WithHint("%s; or accept that by name: --accept %s", f.Mend, f.ID)
		}
		names, mends = append(names, f.ID), append(mends, f.Mend)
	}
	if len(names) == 0 {
		return nil
	}
	return postern.Errorf(postern.Denied, "sshd leaves open what no code guards: %s", strings.Join(names, ", ")).
		WithHint("in sshd_config, for whom this ForceCommand is: %s; or accept them by name: --accept %s", strings.Join(mends, "; "), strings.Join(names, ","))
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
	if terminal, err := unix.IoctlGetTermios(int(s.Stdin.Fd()), unix.TCGETS); err == nil {
		return s.ask(ctx, terminal)
	}
	if carriesProtocol(s.env("SSH_ORIGINAL_COMMAND")) {
		return "", postern.Errorf(postern.Denied, "nobody can type a code here").WithHint("give it with -o SetEnv=%s=CODE", CodeVariable)
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

// ask asks on the terminal, whose settings are restored.
func (s Shell) ask(ctx context.Context, terminal *unix.Termios) (string, error) {
	silent := *terminal
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	fd := int(s.Stdin.Fd())
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return "", err
	}
	fmt.Fprint(s.Stdout, Prompt)
	code, err := readLine(ctx, s.Stdin)
	fmt.Fprintln(s.Stdout)
	return code, errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETSF, terminal))
}

// lineMax bounds what may be typed, bytes.
const lineMax = 256

// readLine reads to the end of a line and not a byte further: what follows is
// for whom the shell becomes. Being interrupted, or the end, is an error.
func readLine(ctx context.Context, in *os.File) (string, error) {
	var line []byte
	one := make([]byte, 1)
	for {
		if err := readable(ctx, in); err != nil {
			return "", err
		}
		n, err := unix.Read(int(in.Fd()), one)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil || n == 0:
			return "", postern.Errorf(postern.Denied, "no code was typed")
		case one[0] == '\n':
			return string(bytes.TrimRight(line, "\r")), nil
		case len(line) == lineMax:
			return "", postern.Errorf(postern.Denied, "that is no code")
		}
		line = append(line, one[0])
	}
}

// readable waits until in can be read, and fails when ctx ends first.
func readable(ctx context.Context, in *os.File) error {
	for {
		if ctx.Err() != nil {
			return postern.Errorf(postern.Denied, "no code was typed in time, or it was interrupted")
		}
		// Signals end ctx from another thread: look again soon.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// Command returns what the process is to become: the user's shell as a login
// shell, or with the command that the client sent, as sshd runs it. What the
// gate was told stays behind.
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
	for _, path := range []string{"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server"} {
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
	if pid, ok := sshLogin(os.Getppid()); ok && processUser(pid) == os.Getuid() {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
}
