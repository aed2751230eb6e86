package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/sshd/sshlog"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/tracetest"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/crypto/ssh"
)

// running is an agent that runs.
type running struct {
	printed []postern.Event
	log     bytes.Buffer
	stop    func()
}

// start runs an agent that reports to the server on a state, with a spool. What it has
// printed and logged may be read once it was stopped.
func start(t *testing.T, st *state.State, spool string, flight ...*record.Flight) *running {
	t.Helper()
	target, err := agent.Server{Socket: st.Path(relay.Socket)}.Target()
	if err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	watched, err := agent.Watch(nil)
	if err != nil {
		t.Fatal(err)
	}
	none := []*record.Flight{nil}
	r := &running{}
	ready, done := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		done <- agent.Run(ctx, agent.Config{
			Host: host, Version: "1", Watched: watched, Target: target, Flight: slices.Concat(flight, none)[0],
			Spool: relay.SpoolConfig{Dir: spool, MaxBytes: 64 << 20},
			Print: func(e postern.Event) { r.printed = append(r.printed, e) },
			Ready: func(*capture.Session) { close(ready) },
			Log:   slog.New(slog.NewTextHandler(&r.log, nil)),
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("the agent ends: %v", err)
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
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

// TestSentence is what Postern is for: a person signs in with an SSH certificate and a
// YubiKey, destroys a virtual machine, and the timeline says all of it in one sentence.
func TestSentence(t *testing.T) {
	posterntest.NeedRoot(t)
	module := posterntest.PAMModule(t)
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()

	authority, _ := posterntest.NewSSHKey(t, t.TempDir(), "ca")
	rig := servertest.NewSSH(t, "alice")
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}},
		Files: map[string]string{
			"/etc/ssh/ca.pub": string(ssh.MarshalAuthorizedKey(authority.PublicKey())),
			"/etc/ssh/sshd_config": "UsePAM yes\nKbdInteractiveAuthentication yes\nPasswordAuthentication no\n" +
				"LogLevel VERBOSE\n" +
				"TrustedUserCAKeys /etc/ssh/ca.pub\nAuthenticationMethods publickey,keyboard-interactive:pam\n",
			"/etc/pam.d/sshd": "auth required " + module + " socket=@DIR@/pam.sock\naccount required " + module +
				" socket=@DIR@/pam.sock\n" +
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
	a := start(t, rig.State, t.TempDir())
	certified := posterntest.SSHCertificate(t, authority, h.Key, "alice")
	c, err := h.Connect("alice", posterntest.Answers(rig.Touch(t, "alice")), ssh.PublicKeys(certified))
	if err != nil {
		t.Fatalf("%v\n%s", err, h.Log())
	}
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.CombinedOutput("virsh -q -c '" + l.UnixURI() + "' list --all && virsh -q -c '" + l.UnixURI() +
		"' destroy vm1")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c.Close()
	a.stop()
	stopEvents()
	printed, err := json.Marshal(a.printed)
	if err != nil || !strings.Contains(string(printed), `"procedure":"domainDestroy"`) ||
		strings.Contains(string(printed), "connectListAllDomains") {
		t.Errorf("the agent sends %s\n%s", printed, a.log.String())
	}
	sentences := said(t, rig.State, postern.EventLibvirtCall)
	want := regexp.MustCompile(`^alice, YubiKey ` + rig.Tokens["alice"].PublicID +
		` and SSH certificate 4711, from 127\.0\.0\.1, ran domainDestroy on vm1; answered in [\d.]+ (ms|s|µs)\.$`)
	if !slices.ContainsFunc(sentences, want.MatchString) {
		t.Errorf("the timeline says:\n%s\nwant %s, of\n%s", strings.Join(sentences, "\n"), want,
			strings.Join(said(t, rig.State, ""), "\n"))
	}
	t.Log(strings.Join(sentences, "\n"))
}

// said returns what the timeline says of events of a kind.
func said(t *testing.T, st *state.State, kind string) (sentences []string) {
	t.Helper()
	log := st.Store.Timeline()
	events, err := log.Events(t.Context(), timeline.Filter{Kind: kind})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		joined, err := timeline.Join(t.Context(), log, e)
		if err != nil {
			t.Fatal(err)
		}
		sentences = append(sentences, timeline.Sentence(e, joined))
	}
	return sentences
}

// TestAgentWhileTheServerIsUnavailable watches clients of all sorts with no server
// there; what they did is on the timeline, once, when the server and the agent
// are back.
func TestAgentWhileTheServerIsUnavailable(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	defer posterntest.TraceAlone(t)()
	rig := servertest.NewSSH(t)
	spool := t.TempDir()
	keep, err := record.NewCondition(`error && machine == "vm1"`)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, rig.State, spool,
		&record.Flight{Name: filepath.Join(t.TempDir(), "libvirt.trace"), Ring: 8 << 20, Keep: keep})
	posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
	posterntest.Virsh(t, l.UnixURI(), "dumpxml", "vm1")
	posterntest.Virsh(t, l.UnixURI(), "dumpxml", "--security-info", "vm1")
	posterntest.Virsh(t, l.TCPURI(), "suspend", "vm1")
	if out, err := l.Virsh("setvcpus", "vm1", "5", "--live"); err == nil {
		t.Errorf("more processors than there can be: %s", out)
	}
	hangUp(t, l)
	// The daemon has let go of that client when it answers another's about it.
	for !strings.Contains(posterntest.Virsh(t, l.UnixURI(), "domstate", "vm1"), "shut off") {
		posterntest.Pause(t)
	}
	if a.stop(); !strings.Contains(a.log.String(), "kept on disk") {
		t.Errorf("nothing is logged while the server is unavailable: %s", a.log.String())
	}

	stopEvents := takeEvents(t, rig.State)
	for range 2 {
		start(t, rig.State, spool).stop()
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
			got = append(got, strings.Join([]string{
				e.Details[timeline.Procedure], e.Object, string(e.Outcome),
				e.Address,
			}, " "))
			t.Log(timeline.Sentence(e, nil))
			if e.Outcome != postern.OK && e.Reason == "" || e.Address == "" && len(e.Links) < 2 {
				t.Errorf("%+v", e)
			}
		case postern.EventAgentLost:
			t.Errorf("%+v", e)
		case postern.EventAgentRecorded:
			got = append(got, e.Kind)
			t.Log(timeline.Sentence(e, nil))
			if f, err := os.Stat(e.Object); err != nil || f.Mode() != 0o600 || f.Size() == 0 {
				t.Errorf("the recording %s: %v", e.Object, err)
			}
			if !strings.Contains(e.Reason, "domain_set_vcpus_flags") || !recordedCall(t, e.Object, domainGetInfo) {
				t.Errorf("recorded because of %s, without calls that are not reported", e.Reason)
			}
		case postern.EventAgentStarted, postern.EventAgentStopped:
			got = append(got, e.Kind)
		}
	}
	want := []string{
		"agent.started", "domainGetXMLDesc vm1 ok ", "domainSuspend vm1 ok 127.0.0.1",
		"domainSetVcpusFlags vm1 failed ",
		"domainDestroy vm1 unknown ", "agent.recorded", "agent.stopped",
		"agent.started", "agent.stopped", "agent.started",
		"agent.stopped",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the timeline has\n%q\nwant\n%q", got, want)
	}
}

const domainGetInfo = 16

// recordedCall reports whether a recording has a call of one of libvirt's procedures.
func recordedCall(t *testing.T, file string, proc int32) bool {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c tracetest.Collector
	if _, err := record.Replay(f, correlate.Filter{}, false, &c); err != nil {
		t.Fatal(err)
	}
	return len(c.Of(func(e *event.Event) bool { return e.Kind == event.ServerRx && e.Proc == proc })) > 0
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
