package sshd_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/otp"
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
	othersCode = "another person's code"
	onlyNone   = "none request"
)

var codeStates = []string{
	noCode, onlyNone, wrongCode, othersCode, replayed, daemonDead, daemonHung, daemonDies, rightCode,
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
			rig := servertest.NewSSH(t, "alice", "fred", "mallory")
			for _, k := range w.keys {
				h.Authorize(t, w.user, "", k)
			}
			if w.script {
				w.service = newYubico(t, rig)
				trust(
					t, h, w.service.root,
					"alice:"+rig.Tokens["alice"].PublicID+"\nmalice:cccccccccccc:"+rig.Tokens["mallory"].PublicID+"\n",
				)
			}
			for _, state := range codeStates {
				t.Run(state, func(t *testing.T) {
					opens := w.opens
					if opens == nil {
						opens = opensAll
					}
					want := opens(state)
					if opened := w.try(t, h, rig, state, want); !slices.Equal(opened, want) {
						t.Errorf("open: %q, want %q\n%s", opened, want, h.Log())
					}
				})
			}
			found := auditHost(t, h)
			missed := slices.DeleteFunc(
				slices.Clone(w.finds),
				func(id string) bool { return slices.Contains(found, id) },
			)
			if (len(found) > 0) != w.wrong || len(missed) > 0 {
				t.Errorf("the auditor finds %q, not %q", found, missed)
			}
		})
	}
}

// trust has a host trust a CA, and the YubiKeys of the write-up's mappings.
func trust(t *testing.T, h *posterntest.Host, root, mappings string) {
	t.Helper()
	for path, content := range map[string]string{
		"/etc/ssl/certs/ca-certificates.crt": root,
		"/etc/yubikey_mappings":              mappings,
	} {
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
	h.Install(t)
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

// try logs in in one way in one state and returns the channels that open. It waits
// longer for those that should.
func (w way) try(t *testing.T, h *posterntest.Host, rig *servertest.SSH, state string, want []string) []string {
	t.Helper()
	defer w.daemon(t, h, rig, state)()
	spoilt := rig.Touch(t, w.user)
	switch state {
	case wrongCode:
		spoilt = strings.Repeat("c", 44)
	case othersCode:
		spoilt = rig.Touch(t, "mallory")
	case replayed:
		if _, err := rig.OneTime.Checker.Check(t.Context(),
			otp.Attempt{User: w.user, Code: spoilt, Service: "sshd"}); err != nil {
			t.Fatal(err)
		}
	}
	code := func() string {
		if state == rightCode {
			return rig.Touch(t, w.user)
		}
		return spoilt
	}
	var c conn
	var opened []string
	for _, ch := range channels {
		// A gate that refuses in a session takes the connection with it.
		if c.Client == nil ||
			w.gate && slices.Contains([]string{"exec", "sftp", "scp", "second session", "-L"}, ch.name) {
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
		c.patience = 5 * time.Second
		if slices.Contains(want, ch.name) {
			c.patience = 2 * time.Minute
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
func (w way) daemon(t *testing.T, h *posterntest.Host, rig *servertest.SSH, state string) (stop func()) {
	t.Helper()
	switch {
	case w.script:
		return w.validation(t, h, state)
	case w.joined != nil:
		return w.joined.bring(state)
	}
	path, cfg, mode := filepath.Join(h.Dir, "pam.sock"), socket.Config{}, os.FileMode(0o600)
	if w.gate {
		path, cfg, mode = h.Inside("/run/postern/shell.sock"), socket.Config{
			Users:   true,
			Account: accountInside,
		}, 0o666
	}
	switch state {
	case daemonDead:
		return func() {}
	case daemonHung:
		ended := make(chan struct{})
		quiet := mute(t, path, mode, func(c net.Conn) { <-ended })
		return func() { close(ended); quiet() }
	case daemonDies:
		return mute(t, path, mode, func(c net.Conn) { _, _ = c.Read(make([]byte, 2000)) })
	}
	return rig.Serve(t, path, cfg, mode)
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
	var report audit.Report
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

// mute listens where the daemon should, and treats each question as do says.
func mute(t testing.TB, path string, mode os.FileMode, do func(net.Conn)) (stop func()) {
	t.Helper()
	l, err := socket.Listen(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	return muteOn(t, l, do)
}

func muteOn(t testing.TB, l net.Listener, do func(net.Conn)) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				do(c)
			})
		}
	})
	stop = sync.OnceFunc(func() { l.Close(); wg.Wait() })
	t.Cleanup(stop)
	return stop
}
