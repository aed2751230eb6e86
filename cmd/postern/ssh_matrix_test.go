package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/posterntest"
	"github.com/postern-project/postern/sshd"
	"golang.org/x/crypto/ssh"
)

// The states that a code, and the daemon that checks it, may be in.
const (
	noCode     = "no code"
	wrongCode  = "wrong code"
	replayed   = "replayed code"
	daemonDead = "daemon dead"
	daemonHung = "daemon hung"
	daemonDies = "daemon dies mid-question"
	rightCode  = "right code"
	somebodys  = "somebody else's code"
	onlyNone   = "none request"
)

var codeStates = []string{noCode, onlyNone, wrongCode, somebodys, replayed, daemonDead, daemonHung, daemonDies, rightCode}

// channels are the ways to use a connection, each with what shows that it is
// open. What the OpenSSH client calls -D and -W are channels of the same kind
// as -L; -N is a connection without a session; a ControlMaster's later session
// is a second session of the connection.
var channels = []struct {
	name string
	open func(c conn) error
}{
	{"shell", func(c conn) error {
		return inSession(c, func(s *ssh.Session, in io.Writer, out io.Reader) error {
			if err := s.Shell(); err != nil {
				return err
			}
			fmt.Fprintln(in, "echo op''en")
			return expect(out, "open")
		})
	}},
	{"exec", func(c conn) error {
		return inSession(c, func(s *ssh.Session, _ io.Writer, out io.Reader) error {
			return errors.Join(s.Start("echo op''en"), expect(out, "open"))
		})
	}},
	{"sftp", func(c conn) error {
		return inSession(c, func(s *ssh.Session, in io.Writer, out io.Reader) error {
			if err := s.RequestSubsystem("sftp"); err != nil {
				return err
			}
			_, _ = in.Write([]byte{0, 0, 0, 5, 1, 0, 0, 0, 3})
			return expect(out, "\x02\x00\x00\x00\x03")
		})
	}},
	{"scp", func(c conn) error {
		return inSession(c, func(s *ssh.Session, in io.Writer, out io.Reader) error {
			if err := s.Start("scp -f /etc/passwd"); err != nil {
				return err
			}
			_, _ = in.Write([]byte{0})
			return expect(out, "C0644")
		})
	}},
	{"second session", func(c conn) error {
		s, err := c.session()
		if err != nil {
			return err
		}
		defer s.Close()
		return inSession(c, func(s *ssh.Session, _ io.Writer, out io.Reader) error {
			return errors.Join(s.Start("echo op''en"), expect(out, "open"))
		})
	}},
	{"-L", func(c conn) error { return banner(c.Dial("tcp", "127.0.0.1:22")) }},
	{"-L socket", func(c conn) error { return banner(c.Dial("unix", c.dir+"/service")) }},
	{"-R", func(c conn) error { return closing(c.Listen("tcp", "127.0.0.1:0")) }},
	{"-R socket", func(c conn) error {
		return closing(c.ListenUnix(filepath.Join(c.dir, "home", c.User(), fmt.Sprint("socket", time.Now().UnixNano()))))
	}},
	{"-w", func(c conn) error {
		unit := uint32(slices.Index([]string{"alice", "fred"}, c.User()))
		ch, reqs, err := c.OpenChannel("tun@openssh.com", ssh.Marshal(struct{ Mode, Unit uint32 }{1, unit}))
		if err == nil {
			go ssh.DiscardRequests(reqs)
			ch.Close()
		}
		return err
	}},
	{"agent", func(c conn) error { return sessionRequest(c, "auth-agent-req@openssh.com", nil) }},
	{"X11", func(c conn) error {
		return sessionRequest(c, "x11-req", ssh.Marshal(struct {
			Single        bool
			Proto, Cookie string
			Screen        uint32
		}{false, "MIT-MAGIC-COOKIE-1", strings.Repeat("00", 16), 0}))
	}},
	{"-N", func(c conn) error {
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		return err
	}},
}

// conn is a connection to a test host. code is for a gate to find, typed for
// one that reads it; nil: there is none.
type conn struct {
	*ssh.Client
	dir   string
	code  func() string
	typed func() string
}

// session opens a session and hands the gate its code.
func (c conn) session() (*ssh.Session, error) {
	s, err := c.NewSession()
	if err == nil && c.code != nil {
		err = s.Setenv(sshd.CodeVariable, c.code())
	}
	return s, err
}

// inSession runs use in a session. What it reads and writes may hang where a
// gate waits for a code, so the session is closed under it after a while.
func inSession(c conn, use func(*ssh.Session, io.Writer, io.Reader) error) error {
	s, err := c.session()
	if err != nil {
		return err
	}
	defer s.Close()
	in, err := s.StdinPipe()
	if err != nil {
		return err
	}
	out, err := s.StdoutPipe()
	if err != nil {
		return err
	}
	to, from := io.Writer(in), out
	if c.typed != nil {
		ty := &typist{in: in, out: out, line: c.typed}
		to, from = ty, ty
	}
	done := make(chan error, 1)
	go func() { done <- use(s, to, from) }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return errors.New("nothing comes")
	}
}

// typist types a line before anything else, once the session has begun: what
// comes earlier sshd throws away.
type typist struct {
	in   io.Writer
	out  io.Reader
	line func() string
	once sync.Once
}

func (ty *typist) begin() { ty.once.Do(func() { fmt.Fprintln(ty.in, ty.line()) }) }

func (ty *typist) Write(p []byte) (int, error) { ty.begin(); return ty.in.Write(p) }

func (ty *typist) Read(p []byte) (int, error) { ty.begin(); return ty.out.Read(p) }

// patience is how long a channel that stays silent is taken for open.
const patience = 5 * time.Second

func expect(r io.Reader, want string) error {
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if bytes.Contains(got, []byte(want)) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("got %q, not %q: %w", got, want, err)
		}
	}
}

func banner(c net.Conn, err error) error {
	if err != nil {
		return err
	}
	defer c.Close()
	return expect(c, "SSH-2.0-")
}

func closing(c io.Closer, err error) error {
	if err == nil {
		c.Close()
	}
	return err
}

func sessionRequest(c conn, name string, payload []byte) error {
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	ok, err := s.SendRequest(name, true, payload)
	if err == nil && !ok {
		err = errors.New("refused")
	}
	return err
}

// way is one configuration of the matrix and how its user comes in.
type way struct {
	name  string
	files map[string]string
	user  string
	// methods returns what the client offers, given the answers to the
	// prompts for codes; key is a client's, and cert its certificate.
	methods func(h *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, good bool) []ssh.AuthMethod
	code    func(code string) []string // what is typed, prompt by prompt
	wrong   bool                       // one factor opens it: the auditor must say so
	finds   []string                   // some of what the auditor must say
	gate    bool                       // the code is asked for in each session
	script  bool                       // the gate is the script of old: it reads the code, and asks api.yubico.com
	opens   func(state string) []string
	service yubico // what the script asks
}

// opensAll is what a right configuration opens, and when.
func opensAll(state string) []string {
	if state != rightCode {
		return nil
	}
	return allChannels()
}

func allChannels() []string {
	var all []string
	for _, c := range channels {
		all = append(all, c.name)
	}
	return all
}

// opensFor returns what a key alone opens beside a gate, and the code in it.
func opensFor(beside, behind []string) func(string) []string {
	return func(state string) []string {
		var open []string
		for _, c := range allChannels() {
			if state != onlyNone && slices.Contains(beside, c) || state == rightCode && slices.Contains(behind, c) {
				open = append(open, c)
			}
		}
		return open
	}
}

func keyAnd(h *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
	m := []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
	if answer != nil {
		m = append(m, ssh.KeyboardInteractive(answer))
	}
	return m
}

func alone(_ *posterntest.Host, answer ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
	if answer == nil {
		return nil
	}
	return []ssh.AuthMethod{ssh.KeyboardInteractive(answer)}
}

// everything is let through by sshd, so that what stays shut is shut by the
// factors.
const everything = "PermitTunnel yes\nX11Forwarding yes\n"

func ways(t *testing.T, module string) []way {
	_, caFile := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	caKey := readKey(t, caFile)
	setup := func(s sshd.Setup) map[string]string {
		s.Module, s.Socket = module+" timeout=1", "@DIR@/pam.sock"
		s.UserCA = ssh.MarshalAuthorizedKey(caKey.PublicKey())
		return setupFiles(t, s, everything)
	}
	typed := func(code string) []string { return []string{code} }
	return []way{
		{name: "key and code", files: setup(sshd.Setup{Mode: sshd.KeyAndCode}), user: "alice", methods: keyAnd, code: typed},
		{
			name: "password and code", files: setup(sshd.Setup{Mode: sshd.PasswordAndCode}), user: "fred", methods: alone,
			code: func(code string) []string { return []string{code, "s3cret"} },
		},
		{
			name: "password and code in one", files: setup(sshd.Setup{Mode: sshd.PasswordAndCode}), user: "fred", methods: alone,
			code: func(code string) []string { return []string{"s3cret" + code} },
		},
		{
			name: "code, and password of those without a key", files: setup(sshd.Setup{Mode: sshd.KeyAndCode, PasswordGroup: "keyless"}), user: "fred", methods: alone,
			code: func(code string) []string { return []string{code, "s3cret"} },
		},
		{name: "some groups only", files: setup(sshd.Setup{Mode: sshd.GroupsOnly, Groups: []string{"staff2"}}), user: "alice", methods: keyAnd, code: typed},
		{name: "break-glass", files: setup(sshd.Setup{Mode: sshd.Certificates, RescueUser: "alice", RescueFrom: "127.0.0.1"}), user: "alice", methods: keyAnd, code: typed},
		{
			name: "certificate", files: setup(sshd.Setup{Mode: sshd.Certificates}), user: "alice", code: typed,
			methods: func(h *posterntest.Host, _ ssh.KeyboardInteractiveChallenge, good bool) []ssh.AuthMethod {
				if !good { // nobody signs for a code that is not right
					return []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
				}
				return []ssh.AuthMethod{ssh.PublicKeys(userCertificate(t, caKey, h.Key, "alice"))}
			},
		},
		{name: "the write-up's PAM file", user: "alice", methods: keyAnd, code: typed, wrong: true, opens: opensFor(allChannels(), nil), files: map[string]string{
			"/etc/ssh/sshd_config": "UsePAM yes\nKbdInteractiveAuthentication yes\nAcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n" + everything,
			"/etc/pam.d/sshd": "auth required pam_env.so # [1]\nauth required pam_env.so envfile=/etc/default/locale\nauth sufficient " + module +
				" timeout=1 socket=@DIR@/pam.sock\n@include common-auth\naccount required pam_unix.so\n",
		}},
		// What the shell refuses stays shut; what sshd opens beside it does not.
		{
			name: "the write-up's ForceCommand", user: "alice", methods: keyOnly, code: typed, wrong: true, gate: true,
			files: map[string]string{"/etc/ssh/sshd_config": gateConfig(everything + "Match User alice\n\tForceCommand @DIR@/postern ssh shell --timeout 1s\n")},
			opens: opensFor([]string{"-L", "-L socket", "-R", "-R socket", "-w", "agent", "X11", "-N"}, nil),
		},
		{
			name: "the write-up's ForceCommand script", user: "alice", methods: keyOnly, code: typed, wrong: true, gate: true, script: true,
			files: map[string]string{
				"/etc/ssh/sshd_config": gateConfig(everything + "Match User alice\n\tForceCommand @DIR@/sbin/yubikey_shell\n"),
				"/sbin/yubikey_shell":  writeUpScript,
				"/etc/yubikey_shell":   "YUBICO_API_ID=\"4711\"\n",
				"/etc/hosts":           yubicoHosts,
			},
			opens: func(state string) []string {
				var behind []string
				if state == somebodys { // whose name ends with alice's; it is good once
					behind = []string{"shell"}
				}
				beside := []string{"-L", "-L socket", "-R", "-R socket", "-w", "agent", "X11", "-N"}
				return opensFor(append(behind, beside...), []string{"shell", "sftp"})(state)
			},
			finds: []string{
				"forcecommand-factor", "gate-tcp-forwarding", "gate-tcp-listening", "gate-socket-forwarding", "gate-agent", "gate-x11",
				"gate-tunnel", "gate-controlmaster", "unanchored-user", "validation-unsigned",
			},
		},
		{
			name: "a ForceCommand with everything shut beside it", user: "alice", methods: keyOnly, code: typed, gate: true,
			files: map[string]string{"/etc/ssh/sshd_config": gateConfig("Match User alice\n\tForceCommand @DIR@/postern ssh shell --timeout 1s\n\tDisableForwarding yes\n\tMaxSessions 1\n\tPermitUserRC no\n" +
				"Match User *,!alice\n\t# postern: one factor is meant\n\tAuthenticationMethods publickey\n")},
			opens: opensFor([]string{"-N"}, []string{"shell", "exec", "sftp", "scp"}),
		},
		{
			name: "a ForceCommand with all accepted by name", user: "alice", methods: keyOnly, code: typed, wrong: true, gate: true,
			files: map[string]string{"/etc/ssh/sshd_config": gateConfig("X11Forwarding yes\nPermitTunnel yes\nMatch User alice\n\tForceCommand @DIR@/postern ssh shell --timeout 1s " +
				"--accept gate-tcp-forwarding,gate-tcp-listening,gate-socket-forwarding,gate-agent,gate-x11,gate-tunnel,gate-controlmaster,gate-userrc\n")},
			opens: opensFor([]string{"-L", "-L socket", "-R", "-R socket", "-w", "agent", "X11", "-N"}, []string{"shell", "exec", "sftp", "scp", "second session"}),
		},
	}
}

func keyOnly(h *posterntest.Host, _ ssh.KeyboardInteractiveChallenge, _ bool) []ssh.AuthMethod {
	return []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
}

func gateConfig(more string) string {
	return "UsePAM no\nPermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv LANG LC_*\nSubsystem sftp /usr/lib/openssh/sftp-server\n" + more
}

// TestNothingOpensBeforeBothFactors tries every channel, under every
// configuration, in every state of code and daemon.
func TestNothingOpensBeforeBothFactors(t *testing.T) {
	posterntest.NeedRoot(t)
	posterntest.Need(t, "xauth")
	posterntest.Need(t, "wget")
	module := posterntest.PAMModule(t)
	for _, w := range ways(t, module) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			h := matrixHost(t, w.files)
			rig := newSSHRig(t, "alice", "fred", "mallory")
			if w.script {
				w.service = newYubico(t, rig)
				trust(t, h, w.service.root, "alice:"+rig.tokens["alice"].PublicID+"\nmalice:cccccccccccc:"+rig.tokens["mallory"].PublicID+"\n")
			}
			for _, state := range codeStates {
				opened := w.try(t, h, rig, state)
				opens := w.opens
				if opens == nil {
					opens = opensAll
				}
				if want := opens(state); !slices.Equal(opened, want) {
					t.Errorf("with %s, open: %q, want %q\n%s", state, opened, want, h.Log())
				}
			}
			found := auditHost(t, h)
			missed := slices.DeleteFunc(slices.Clone(w.finds), func(id string) bool { return slices.Contains(found, id) })
			if (len(found) > 0) != w.wrong || len(missed) > 0 {
				t.Errorf("the auditor finds %q, not %q", found, missed)
			}
		})
	}
}

// trust has a host trust a CA, and the YubiKeys of the write-up's mappings.
func trust(t *testing.T, h *posterntest.Host, root, mappings string) {
	t.Helper()
	for path, content := range map[string]string{"/etc/ssl/certs/ca-certificates.crt": root, "/etc/yubikey_mappings": mappings} {
		if err := os.WriteFile(h.Inside(path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func matrixHost(t *testing.T, files map[string]string) *posterntest.Host {
	t.Helper()
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{
			{Name: "alice", Groups: []string{"staff2"}},
			{Name: "fred", Password: "s3cret", Groups: []string{"keyless"}},
		},
		Files: files,
	})
	posternBinary(t, h.Dir)
	// Something local to reach through a forwarded socket.
	l, err := net.Listen("unix", filepath.Join(h.Dir, "service"))
	if err != nil {
		t.Fatal(err)
	}
	h.Chmod(t, "service", 0o666)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "SSH-2.0-local\n")
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return h
}

// try comes in one way in one state and returns the channels that open.
func (w way) try(t *testing.T, h *posterntest.Host, rig *sshRig, state string) []string {
	t.Helper()
	defer w.daemon(t, h, rig, state)()
	spoilt := rig.touch(t, w.user)
	switch state {
	case wrongCode:
		spoilt = strings.Repeat("c", 44)
	case somebodys:
		spoilt = rig.touch(t, "mallory")
	case replayed:
		if _, err := rig.oneTime.Checker.Check(t.Context(), otpAttempt(w.user, spoilt)); err != nil {
			t.Fatal(err)
		}
	}
	code := func() string {
		if state == rightCode {
			return rig.touch(t, w.user)
		}
		return spoilt
	}
	var c conn
	var opened []string
	for _, ch := range channels {
		// A gate that refuses in a session takes the connection with it.
		if c.Client == nil || w.gate && slices.Contains([]string{"exec", "sftp", "scp", "second session", "-L"}, ch.name) {
			client, err := w.connect(h, state, code)
			if err != nil {
				return opened
			}
			defer client.Close()
			c = conn{Client: client, dir: h.Dir}
			switch {
			case w.script && state == noCode:
				c.typed = func() string { return "" }
			case w.script:
				c.typed = code
			case w.gate && state != noCode:
				c.code = code
			}
		}
		if err := ch.open(c); err == nil {
			opened = append(opened, ch.name)
		} else {
			t.Logf("%s, %s: %s stays shut: %v", w.name, state, ch.name, err)
		}
	}
	return opened
}

func (w way) connect(h *posterntest.Host, state string, code func() string) (*ssh.Client, error) {
	var answer ssh.KeyboardInteractiveChallenge
	if state != noCode && !w.gate {
		answer = posterntest.Answers(w.code(code())...)
	}
	methods := w.methods(h, answer, state == rightCode)
	if state == onlyNone {
		methods = []ssh.AuthMethod{}
	}
	return h.Connect(w.user, nil, methods...)
}

// daemon brings the daemon into a state and returns what ends it.
func (w way) daemon(t *testing.T, h *posterntest.Host, rig *sshRig, state string) (stop func()) {
	t.Helper()
	if w.script {
		return w.validation(t, h, state)
	}
	socket, cfg, mode := filepath.Join(h.Dir, "pam.sock"), sshd.Config{}, os.FileMode(0o600)
	if w.gate {
		socket, cfg, mode = h.Inside("/run/postern/shell.sock"), sshd.Config{Users: true, Account: accountInside}, 0o666
	}
	switch state {
	case daemonDead:
		return func() {}
	case daemonHung:
		ended := make(chan struct{})
		quiet := mute(t, socket, mode, func(c net.Conn) { <-ended })
		return func() { close(ended); quiet() }
	case daemonDies:
		return mute(t, socket, mode, func(c net.Conn) { _, _ = c.Read(make([]byte, 2000)) })
	}
	return rig.serve(t, socket, cfg, mode)
}

// validation brings api.yubico.com into a state and returns what ends it.
func (w way) validation(t *testing.T, h *posterntest.Host, state string) (stop func()) {
	t.Helper()
	switch state {
	case daemonDead:
		return func() {}
	case daemonHung:
		ended := make(chan struct{})
		quiet := muteOn(t, h.Listen(t, "tcp", yubicoAddr), func(net.Conn) { <-ended })
		return func() { close(ended); quiet() }
	case daemonDies:
		return muteOn(t, h.Listen(t, "tcp", yubicoAddr), func(c net.Conn) { _, _ = c.Read(make([]byte, 2000)) })
	}
	return w.service.serve(t, h)
}

// accountInside names the accounts of a test host.
func accountInside(uid uint32) (string, error) {
	return []string{"alice", "fred"}[uid-20000], nil
}

// auditHost runs the program on the host and returns what it finds.
func auditHost(t *testing.T, h *posterntest.Host) []string {
	t.Helper()
	out, err := h.Command(filepath.Join(h.Dir, "postern"), "ssh", "check", "--json").Output()
	var report sshd.Report
	if jerr := json.Unmarshal(out, &report); jerr != nil {
		t.Fatalf("postern ssh check: %v: %s", err, out)
	}
	if (err == nil) != (len(report.Findings) == 0) {
		t.Errorf("%d findings, and the program ends with %v", len(report.Findings), err)
	}
	var ids []string
	for _, f := range report.Findings {
		if !strings.HasPrefix(f.ID, "clock-") { // this machine's, not the configuration's
			ids = append(ids, f.ID)
		}
	}
	return ids
}
