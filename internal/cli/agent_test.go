package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/server/servertest"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/sshd/sshlog"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/crypto/ssh"
)

// startAgent runs postern agent on a state until stop is called, which returns
// what it printed and complained.
func startAgent(t *testing.T, stateDir string, args ...string) (stop func() (string, string)) {
	t.Helper()
	return runAgent(t, append([]string{"--state", stateDir, "--spool", t.TempDir()}, args...)...)
}

// runAgent runs postern agent until stop is called.
func runAgent(t *testing.T, args ...string) (stop func() (string, string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var out, errs stream
	done := make(chan int, 1)
	go func() { done <- run(ctx, append([]string{"agent"}, args...), strings.NewReader(""), &out, &errs) }()
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
func takeEvents(t *testing.T, st *state.State) (stop func()) {
	t.Helper()
	s, err := server.ServeEvents(st, http.NotFoundHandler(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
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

	authority, _ := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	rig := servertest.NewSSH(t, "alice")
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: map[string]string{
			"/etc/ssh/ca.pub": string(ssh.MarshalAuthorizedKey(authority.PublicKey())),
			"/etc/ssh/sshd_config": "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\nLogLevel VERBOSE\n" +
				"TrustedUserCAKeys /etc/ssh/ca.pub\nAuthenticationMethods publickey,keyboard-interactive:pam\n",
			"/etc/pam.d/sshd": "auth required " + module + " socket=@DIR@/pam.sock\naccount required " + module + " socket=@DIR@/pam.sock\n" +
				"session required pam_loginuid.so\nsession optional " + module + " socket=@DIR@/pam.sock\n",
		},
		LoginLog: true,
	})
	rig.Serve(t, h.Dir+"/pam.sock", socket.Config{}, 0o600)
	lines := make(chan sshlog.Line, 100)
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	h.Logged(t, func(pid int, message string) { lines <- sshlog.Line{PID: pid, Time: time.Now(), Message: message} })
	go func() {
		defer close(watching)
		sshlog.Watcher{
			Record: rig.State.Store, Person: func(_ context.Context, account string) string { return account },
			Log: slog.New(slog.DiscardHandler),
		}.Watch(ctx, lines)
	}()
	defer func() { cancel(); <-watching }()

	stopEvents := takeEvents(t, rig.State)
	stopAgent := startAgent(t, rig.State.Dir, "--print")
	certified := posterntest.SSHCertificate(t, authority, h.Key, "alice")
	c, err := h.Connect("alice", posterntest.Answers(rig.Touch(t, "alice")), ssh.PublicKeys(certified))
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

	a := &app{state: rig.State.Dir, err: io.Discard}
	var words strings.Builder
	a.out = &words
	if err := a.logList(t.Context(), &logOptions{filter: timeline.Filter{Kind: postern.EventLibvirtCall, Limit: 10}}); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`alice, YubiKey ` + rig.Tokens["alice"].PublicID + ` and SSH certificate 4711, from 127\.0\.0\.1, ran domainDestroy on vm1; answered in [\d.]+ (ms|s|µs)\.`)
	if !want.MatchString(words.String()) {
		t.Errorf("the timeline says:\n%s\nwant %s", words.String(), want)
		words.Reset()
		_ = a.logList(t.Context(), &logOptions{json: true})
		t.Log(words.String())
	}
	t.Log(words.String())
}

// agentEvent is an event as an agent on a host sends it.
func agentEvent(host, object string) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: postern.EventLibvirtCall, Outcome: postern.OK, Host: host, Object: object,
		Links: []postern.Link{{Kind: postern.LinkSession, ID: host + "/boot/7"}}, Details: map[string]string{timeline.Procedure: "domainDestroy"},
	}
}

// sendOne sends one event as postern agent does with these flags.
func sendOne(t *testing.T, stateDir string, o agentOptions, e postern.Event) error {
	t.Helper()
	spool, err := relay.OpenSpool(relay.SpoolConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	target, err := o.target(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Client.CloseIdleConnections()
	s, err := relay.NewSender(relay.SenderConfig{URL: target.URL, Host: o.host, Client: target.Client}, spool, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := spool.Append(e); err != nil {
		t.Fatal(err)
	}
	_, err = s.Send(t.Context())
	return err
}

// TestWhoMaySendEvents runs a server and sends to it as agents of all sorts.
func TestWhoMaySendEvents(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	port, plain := posterntest.FreePort(t), posterntest.FreePort(t)
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n\thttps_port %d\n\thttp_port %d\n\tdefault_bind 127.0.0.1\n\tpostern {\n\t\tportal https://localhost:%d\n\t}\n}\n", port, plain, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startRun(t, state, "--config", config)
	root, err := r.postern("ca", "root", "show")
	if err != nil {
		t.Fatal(root, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root.pem"), []byte(root), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"user", "add", "hv1", "--group", "agents"},
		{"user", "add", "hv2"},
		{"user", "add", "hv3", "--group", "agents"},
		{"ca", "issue", "--client", "hv1", "--layout", "pem", "--out", dir},
		{"ca", "issue", "--client", "hv2", "--layout", "pem", "--out", dir},
		{"ca", "issue", "--client", "hv3", "--layout", "pem", "--out", dir},
		{"user", "suspend", "hv3"},
	} {
		if out, err := r.postern(args...); err != nil {
			t.Fatalf("postern %v: %v: %s", args, err, out)
		}
	}
	remote := func(person, host string) agentOptions {
		return agentOptions{
			server: fmt.Sprintf("https://localhost:%d", port), host: host, ca: filepath.Join(dir, "root.pem"),
			cert: filepath.Join(dir, person+".pem"), key: filepath.Join(dir, person+".key"),
		}
	}
	r.await(func() bool { return sendOne(t, state, remote("hv1", "hv1"), agentEvent("hv1", "remote")) == nil })
	for name, c := range map[string]struct{ person, host string }{
		"nobody in the group": {"hv2", "hv2"}, "another host's agent": {"hv1", "hv2"}, "a suspended one": {"hv3", "hv3"},
	} {
		if err := sendOne(t, state, remote(c.person, c.host), agentEvent(c.host, "forged")); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("%s may send: %v", name, err)
		}
	}
	// What is refused as forged is given up, and not written.
	forged := agentEvent("hv1", "forged")
	forged.Kind = postern.EventSSHAuth
	if err := sendOne(t, state, remote("hv1", "hv1"), forged); err != nil {
		t.Error(err)
	}
	if got := r.curl("--cacert", filepath.Join(dir, "root.pem"), "-d", "x", fmt.Sprintf("https://localhost:%d%s", port, relay.Path)); !strings.HasSuffix(got, "403") {
		t.Errorf("without a certificate: %s", got)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if err := sendOne(t, state, agentOptions{host: host}, agentEvent(host, "local")); err != nil {
		t.Errorf("over the socket: %v", err)
	}
	if err := sendOne(t, state, agentOptions{host: "hv1"}, agentEvent("hv1", "forged")); postern.CodeOf(err) != postern.Unavailable {
		t.Errorf("another host's events over the socket: %v", err)
	}
	out, err := r.postern("log", "list", "--kind", "libvirt", "--json")
	if err != nil {
		t.Fatal(out, err)
	}
	if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"host":"hv1","object":"remote"`) || !strings.Contains(out, `"outcome":"ok","object":"local"`) {
		t.Errorf("the timeline has\n%s", out)
	}
	if out, err := r.postern("log", "list", "--kind", "ssh", "--json"); err != nil || out != "" {
		t.Errorf("a forged login: %s %v", out, err)
	}
}

// TestAnotherUserMaySendNoEvents reaches the socket as nobody, as if its
// directory let everybody in.
func TestAnotherUserMaySendNoEvents(t *testing.T) {
	posterntest.NeedRoot(t)
	rig := servertest.NewSSH(t)
	defer takeEvents(t, rig.State)()
	path := rig.State.Path(server.Socket)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for dir := rig.State.Dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(posterntest.Need(t, "curl"), "-sS", "--unix-socket", path, "-d", "x", "-w", "%{http_code}", "http://postern"+relay.Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "only root") || !strings.HasSuffix(string(out), "403") {
		t.Errorf("%s %v", out, err)
	}
}

// TestAgentWhileTheServerIsAway watches clients of all sorts with no server
// there; what they did is on the timeline, once, when the server and the agent
// are back.
func TestAgentWhileTheServerIsAway(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()
	rig := servertest.NewSSH(t)
	spool := t.TempDir()
	// What is in the spool later counts; the last --spool does.
	stop := startAgent(t, rig.State.Dir, "--spool", spool)
	virsh(t, l.UnixURI(), "dominfo", "vm1")
	virsh(t, l.UnixURI(), "dumpxml", "vm1")
	virsh(t, l.UnixURI(), "dumpxml", "--security-info", "vm1")
	virsh(t, l.TCPURI(), "suspend", "vm1")
	if out, err := l.Virsh("setvcpus", "vm1", "5", "--live"); err == nil {
		t.Errorf("more processors than there can be: %s", out)
	}
	hangUp(t, l)
	// The daemon has let go of that client when it answers another's about it.
	for !strings.Contains(virsh(t, l.UnixURI(), "domstate", "vm1"), "shut off") {
		posterntest.Pause(t)
	}
	if _, complaints := stop(); !strings.Contains(complaints, "kept on disk") {
		t.Errorf("nothing is logged while the server is unavailable: %s", complaints)
	}

	stopEvents := takeEvents(t, rig.State)
	for range 2 {
		startAgent(t, rig.State.Dir, "--spool", spool)()
	}
	stopEvents()
	events, err := rig.State.Store.Timeline().Events(t.Context(), timeline.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		switch e.Kind {
		case postern.EventLibvirtCall:
			got = append(got, strings.Join([]string{e.Details[timeline.Procedure], e.Object, string(e.Outcome), e.Address}, " "))
			t.Log(timeline.Sentence(e, nil))
			if e.Outcome != postern.OK && e.Reason == "" || e.Address == "" && len(e.Links) < 2 {
				t.Errorf("%+v", e)
			}
		case postern.EventAgentLost:
			t.Errorf("%+v", e)
		case postern.EventAgentStarted, postern.EventAgentStopped:
			got = append(got, e.Kind)
		}
	}
	want := []string{
		"agent.started", "domainGetXMLDesc vm1 ok ", "domainSuspend vm1 ok 127.0.0.1", "domainSetVcpusFlags vm1 failed ",
		"domainDestroy vm1 unknown ", "agent.stopped", "agent.started", "agent.stopped", "agent.started", "agent.stopped",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the timeline has\n%q\nwant\n%q", got, want)
	}
}

// TestAgentThatOnlyPrints keeps nothing where there is no state.
func TestAgentThatOnlyPrints(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_STATE_HOME", home)
	t.Setenv("POSTERN_STATE", "")
	before, _ := os.Stat("/var/lib/postern-agent")
	stop := runAgent(t, "--print", "--procedure", "domain_suspend")
	virsh(t, l.UnixURI(), "suspend", "vm1")
	out, _ := stop()
	if !strings.Contains(out, `"object":"vm1"`) || !strings.Contains(out, "domainSuspend") {
		t.Errorf("printed: %s", out)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
	if after, _ := os.Stat("/var/lib/postern-agent"); after != nil && before == nil {
		t.Error("a spool is made for root")
	}
}

func TestAgentFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--all --procedure domain_*":                  "exclude each other",
		"--procedure nope_*":                          "no procedure fits",
		"--cert x":                                    "are for a --server",
		"--server https://id.example.com":             "needs --cert and --key",
		"--server http://x --cert /x --key /x":        "is not an address",
		"--server https://x --cert /none --key /none": "no such file",
	} {
		var out, errs stream
		args := append([]string{"agent", "--state", t.TempDir()}, strings.Fields(args)...)
		if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code == 0 || !strings.Contains(errs.String(), want) {
			t.Errorf("%v: exit %d: %s", args, code, errs.String())
		}
	}
}

// hangUp destroys vm1 and does not wait for the answer.
func hangUp(t *testing.T, l *posterntest.Libvirtd) {
	t.Helper()
	r, err := posterntest.DialRPC("unix", l.Socket())
	if err != nil {
		t.Fatal(err)
	}
	domain, err := r.Call(posterntest.ProcLookupByName, posterntest.String("vm1"))
	if err != nil {
		t.Fatal(err)
	}
	const destroy = 12
	if err := errors.Join(r.Send(posterntest.RemoteProgram, destroy, slices.Clone(domain)), r.Close()); err != nil {
		t.Fatal(err)
	}
}
