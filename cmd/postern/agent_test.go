package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/posterntest"
	"github.com/postern-project/postern/sshd"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/crypto/ssh"
)

// startAgent runs postern agent on a state until stop is called, which returns
// what it printed and complained.
func startAgent(t *testing.T, stateDir string, args ...string) (stop func() (string, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var out, errs stream
	done := make(chan int, 1)
	args = append([]string{"agent", "--state", stateDir, "--spool", t.TempDir()}, args...)
	go func() { done <- run(ctx, args, strings.NewReader(""), &out, &errs) }()
	t.Cleanup(cancel)
	for !strings.Contains(errs.String(), "ready:") {
		if len(done) > 0 {
			t.Fatalf("postern agent ends: %s", errs.String())
		}
		posterntest.Pause(t)
	}
	return func() (string, string) {
		cancel()
		if code := <-done; code != 0 {
			t.Errorf("postern agent: exit %d: %s", code, errs.String())
		}
		return out.String(), errs.String()
	}
}

// takeEvents takes what agents on this host send, as postern run does.
func takeEvents(t *testing.T, st *state) (stop func()) {
	t.Helper()
	s, err := serveEvents(st, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSentence is what Postern is for: somebody comes in with an SSH
// certificate and a YubiKey, destroys a virtual machine, and the timeline says
// all of it in one sentence.
func TestSentence(t *testing.T) {
	posterntest.NeedRoot(t)
	module := posterntest.PAMModule(t)
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()

	_, caFile := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	authority := readKey(t, caFile)
	rig := newSSHRig(t, "alice")
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: map[string]string{
			"/etc/ssh/ca.pub": string(ssh.MarshalAuthorizedKey(authority.PublicKey())),
			"/etc/ssh/sshd_config": "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\nLogLevel VERBOSE\n" +
				"TrustedUserCAKeys /etc/ssh/ca.pub\nAuthenticationMethods publickey,keyboard-interactive:pam\n",
			"/etc/pam.d/sshd": "auth required " + module + " socket=@DIR@/pam.sock\naccount required " + module + " socket=@DIR@/pam.sock\n" +
				"session required pam_loginuid.so\nsession required pam_unix.so\n",
		},
		LoginLog: true,
	})
	rig.serve(t, h.Dir+"/pam.sock", sshd.Config{}, 0o600)
	lines := make(chan sshd.LogLine)
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	go func() { _ = sshd.ReadSyslog(ctx, h.Syslog, lines) }()
	go func() {
		defer close(watching)
		sshd.Watcher{
			Record: rig.st.Store, Person: func(_ context.Context, account string) string { return account },
			Log: slog.New(slog.DiscardHandler), Sessions: true,
		}.Watch(ctx, lines)
	}()
	defer func() { cancel(); <-watching }()

	stopEvents := takeEvents(t, rig.st)
	stopAgent := startAgent(t, rig.st.Dir, "--print")
	certified := userCertificate(t, authority, h.Key, "alice")
	c, err := h.Connect("alice", posterntest.Answers(rig.touch(t, "alice")), ssh.PublicKeys(certified))
	if err != nil {
		t.Fatalf("%v\n%s", err, h.Log())
	}
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.CombinedOutput("virsh -q -c '" + l.UnixURI() + "' list --all && virsh -q -c '" + l.UnixURI() + "' destroy vm1")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Close()
	printed, complaints := stopAgent()
	stopEvents()
	if !strings.Contains(printed, `"procedure":"domainDestroy"`) || strings.Contains(printed, "connectListAllDomains") {
		t.Errorf("the agent sends %s\n%s", printed, complaints)
	}

	a := &app{state: rig.st.Dir, err: io.Discard}
	var words strings.Builder
	a.out = &words
	if err := a.logList(t.Context(), &logListOptions{logFilter: logFilter{Filter: timeline.Filter{Kind: postern.EventLibvirtCall, Limit: 10}}, words: true}); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`alice, YubiKey ` + rig.tokens["alice"].PublicID + ` and SSH certificate 4711, from 127\.0\.0\.1, ran domainDestroy on vm1; answered in [\d.]+ (ms|s|µs)\.`)
	if !want.MatchString(words.String()) {
		t.Errorf("the timeline says:\n%s\nwant %s", words.String(), want)
		words.Reset()
		_ = a.logList(t.Context(), &logListOptions{json: true})
		t.Log(words.String())
	}
	t.Log(words.String())
}
