package server

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/timeline"
)

// agentEvent is an event as an agent on a host sends it.
func agentEvent(host, object string) postern.Event {
	return postern.Event{
		Time: time.Now(), Kind: postern.EventLibvirtCall, Outcome: postern.OK, Host: host, Object: object,
		Links:   []postern.Link{{Kind: postern.LinkSession, ID: host + "/boot/7"}},
		Details: map[string]string{timeline.Procedure: "domainDestroy"},
	}
}

// sendOne sends one event to a server as the agent of a host does.
func sendOne(t *testing.T, to agent.Server, host string, e postern.Event) error {
	t.Helper()
	spool, err := relay.OpenSpool(relay.SpoolConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	target, err := to.Target()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Client.CloseIdleConnections()
	s, err := relay.NewSender(relay.SenderConfig{URL: target.Base + relay.Path, Host: host, Client: target.Client},
		spool,
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := spool.Append(e); err != nil {
		t.Fatal(err)
	}
	_, err = s.Send(t.Context())
	return err
}

// agentCredentials adds a person, and returns the files of a certificate for them.
func agentCredentials(t *testing.T, st *state.State, p postern.Person) agent.Credentials {
	t.Helper()
	dir := t.TempDir()
	c := agent.Credentials{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
		CA: filepath.Join(dir, "root.pem"),
	}
	if err := st.Store.People().AddPerson(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.GenerateKey(ca.P256)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := authority.IssueClient(t.Context(), ca.ClientRequest{Key: key.Public(), Person: p.Name})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.Cert, string(issued.PEM()))
	writeFile(t, c.Key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	writeFile(t, c.CA, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Root().Raw})))
	return c
}

// startForAgents starts a server for agents of other hosts, at https://localhost.
func startForAgents(t *testing.T) *running {
	t.Helper()
	config := filepath.Join(t.TempDir(), "Caddyfile")
	return startServer(t, func(o *Options) {
		writeFile(t, config,
			fmt.Sprintf("{\n\thttps_port %d\n\thttp_port %d\n\tdefault_bind 127.0.0.1\n\tpostern {\n"+
				"\t\tportal https://localhost:%d\n\t}\n}\n",
				o.HTTPSPort, o.HTTPPort, o.HTTPSPort))
		o.Config = config
	})
}

// TestWhoMaySendEvents runs a server and sends to it as agents of all sorts.
func TestWhoMaySendEvents(t *testing.T) {
	r := startForAgents(t)
	st := r.open()
	address := fmt.Sprintf("https://localhost:%d", r.opts.HTTPSPort)
	remote := func(c agent.Credentials) agent.Server { return agent.Server{URLs: []string{address}, Credentials: c} }
	hv1 := agentCredentials(t, st, postern.Person{Name: "hv1", Groups: []string{"agents"}})
	hv2 := agentCredentials(t, st, postern.Person{Name: "hv2"})
	hv3 := agentCredentials(t, st, postern.Person{Name: "hv3", Groups: []string{"agents"}})
	if err := st.Store.People().SetPersonStatus(t.Context(), "hv3", postern.PersonSuspended); err != nil {
		t.Fatal(err)
	}
	r.await(func() bool { return sendOne(t, remote(hv1), "hv1", agentEvent("hv1", "remote")) == nil })
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	local := agent.Server{Socket: filepath.Join(r.opts.State, relay.Socket)}
	for name, c := range map[string]struct {
		to   agent.Server
		host string
	}{
		"no member of the group": {remote(hv2), "hv2"}, "another host's agent": {remote(hv1), "hv2"},
		"a suspended agent":               {remote(hv3), "hv3"},
		"another host's, over the socket": {local, "hv1"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := sendOne(t, c.to, c.host, agentEvent(c.host,
				"forged")); postern.CodeOf(err) != postern.Unavailable {
				t.Errorf("it may send: %v", err)
			}
		})
	}
	// What is refused as forged is given up, and not written.
	forged := agentEvent("hv1", "forged")
	forged.Kind = postern.EventOTP
	if err := sendOne(t, remote(hv1), "hv1", forged); err != nil {
		t.Error(err)
	}
	out, err := exec.Command(posterntest.Need(t, "curl"), "-sS", "-w", "%{http_code}", "--cacert", hv1.CA, "-d", "x",
		address+relay.Path).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "403") {
		t.Errorf("without a certificate: %s %v", out, err)
	}
	if err := sendOne(t, local, host, agentEvent(host, "local")); err != nil {
		t.Errorf("over the socket: %v", err)
	}
	events, err := st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: "libvirt"})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 2 || events[0].Host != "hv1" || events[0].Object != "remote" || events[1].Host != "" ||
		events[1].Object != "local" {
		t.Errorf("the timeline has %+v", events)
	}
	if events, err := st.Store.Timeline().Events(t.Context(), timeline.Filter{Kind: "ssh"}); err != nil ||
		len(events) > 0 {
		t.Errorf("a forged login: %+v %v", events, err)
	}
}

// TestAnotherUserMaySendNoEvents reaches the socket as nobody, as if its
// directory were open to everybody.
func TestAnotherUserMaySendNoEvents(t *testing.T) {
	posterntest.NeedRoot(t)
	st, err := state.Create(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	s, err := ServeEvents(st, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	path := st.Path(relay.Socket)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for dir := st.Dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(posterntest.Need(t, "curl"), "-sS", "--unix-socket", path, "-d", "x", "-w", "%{http_code}",
		"http://postern"+relay.Path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "only root") || !strings.HasSuffix(string(out), "403") {
		t.Errorf("%s %v", out, err)
	}
}
