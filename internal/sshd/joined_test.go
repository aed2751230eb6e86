package sshd_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/timeline"
)

// The states that a joined host, its agent, its server and the network between may be in.
const (
	serverDead    = "server dead"
	serverHung    = "server hung"
	serverDies    = "server dies mid-question"
	networkCut    = "network cut"
	hostExpired   = "certificate of the host expired"
	hostSuspended = "host suspended"
	agentKilled   = "agent killed"
)

var joinedStates = []string{
	noCode, wrongCode, serverDead, serverHung, serverDies, networkCut, hostExpired, hostSuspended, agentKilled,
	rightCode,
}

// TestNothingOpensOnAJoinedHost tries every channel of a host whose agent asks a server
// elsewhere, in each of those states: with a code that would be right, but for the state.
// make soak tries it under every configuration that asks for codes.
func TestNothingOpensOnAJoinedHost(t *testing.T) {
	t.Parallel()
	posterntest.NeedRoot(t)
	posterntest.Need(t, "xauth")
	for _, w := range ways(t, posterntest.PAMModule(t)) {
		if w.gate || w.wrong || w.name != "key and code" && os.Getenv("POSTERN_SOAK") != "1" {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			files := map[string]string{}
			for path, text := range w.files { // an answer from elsewhere takes longer
				files[path] = strings.ReplaceAll(text, " timeout=1", " timeout=5")
			}
			h := matrixHost(t, files)
			rig := servertest.NewSSH(t, "alice", "fred", "mallory")
			for _, k := range w.keys {
				h.Authorize(t, w.user, "", k)
			}
			w.joined = newJoined(t, rig, filepath.Join(h.Dir, "pam.sock"))
			for _, state := range joinedStates {
				want := opensAll(state)
				if opened := w.try(t, h, rig, state, want); !slices.Equal(opened, want) {
					t.Errorf("%s: open: %q, want %q\n%s", state, opened, want, h.Log())
				}
			}
		})
	}
}

// joined is a host that has joined a server, which is reached over a network of its own.
type joined struct {
	t     *testing.T
	rig   *servertest.SSH
	to    agent.Server
	pam   string
	spool string       // the agent's, which audits the host once
	state atomic.Value // a string
	roots *x509.CertPool
	cert  tls.Certificate // the server's
}

// newJoined admits the host hv1.
func newJoined(t *testing.T, rig *servertest.SSH, pam string) *joined {
	t.Helper()
	db := rig.State.Store
	authority, err := ca.Init(t.Context(), ca.Config{Name: "Test"}, db.CA())
	if err != nil {
		t.Fatal(err)
	}
	issued, err := authority.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	j := &joined{t: t, rig: rig, pam: pam, spool: t.TempDir(), roots: x509.NewCertPool()}
	j.roots.AddCert(authority.Root())
	j.cert = tls.Certificate{Certificate: [][]byte{issued.Leaf.Raw, issued.Chain[0].Raw}, PrivateKey: issued.Key}
	tokens, err := host.Invite(t.Context(), db.Hosts(), postern.Actor{}, []postern.Host{{Name: "hv1"}},
		host.InviteOptions{Root: authority.Root()})
	if err != nil {
		t.Fatal(err)
	}
	key, csr := posterntest.NewCSR(t)
	admit := server.HostAuthority{CA: authority, Hosts: db.Hosts(), Limit: new(host.Limit)}
	_, chain, err := admit.Admit(t.Context(), postern.Actor{}, tokens[0].Hash(), csr)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	j.to.Credentials = agent.Credentials{
		Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "root.pem"),
	}
	for path, text := range map[string][]byte{
		j.to.Cert: chain, j.to.Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		j.to.CA: ca.EncodeCertificates(authority.Root()),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return j
}

// bring starts the server and the agent, and brings them into a state; stop ends that.
func (j *joined) bring(state string) (stop func()) {
	j.t.Helper()
	j.state.Store("")
	if state == hostExpired { // the next connection is refused
		j.state.Store(state)
	}
	release := make(chan struct{})
	s := j.serve(release)
	front, cut := j.network(s.Listener.Addr().String())
	j.to.URLs = []string{(&url.URL{Scheme: "https", Host: front.Addr().String()}).String()}
	kill := j.runAgent()
	j.state.Store(state)
	switch state {
	case serverDead:
		s.CloseClientConnections()
		s.Listener.Close()
	case networkCut:
		cut()
	case hostSuspended:
		j.setStatus(postern.HostSuspended)
	case agentKilled:
		kill()
	}
	return func() {
		close(release)
		kill()
		front.Close()
		s.Close()
		if state == hostSuspended {
			j.setStatus(postern.HostJoined)
		}
	}
}

func (j *joined) setStatus(status postern.HostStatus) {
	j.t.Helper()
	hosts := j.rig.State.Store.Hosts()
	if _, err := hosts.SetHostStatus(j.t.Context(), postern.Actor{}, "hv1", status, postern.Event{}); err != nil {
		j.t.Error(err)
	}
}

// serve answers hosts as postern run does.
func (j *joined) serve(release chan struct{}) *httptest.Server {
	db := j.rig.State.Store
	answers := remote.NewHandler(remote.Config{
		Host: func(r *http.Request) (string, error) {
			leaf, issuer := r.TLS.VerifiedChains[0][0], r.TLS.VerifiedChains[0][1]
			h, err := db.Hosts().HostByCertificate(r.Context(), ca.SerialString(leaf.SerialNumber), issuer.Raw)
			return h.Name, err
		},
		Checker: func(name string) sshd.Checker {
			return server.SSHChecker{OTP: j.rig.OneTime.Checker, DB: db, Host: name}
		},
		Check: relay.Check,
		Update: func(ctx context.Context, _ string, seen remote.Seen) (u remote.Update, err error) {
			before, _ := timeline.ReadCheckpoint(seen.Checkpoint) // none is of size 0
			signed, proofs, err := db.Timeline().Growth(ctx, before.Size)
			if err != nil {
				return u, err
			}
			for _, h := range proofs[0] {
				u.Growth = append(u.Growth, h[:])
			}
			u.Checkpoint = signed
			return u, nil
		},
		Cut: func(*http.Request) {},
		Log: slog.New(slog.DiscardHandler),
	})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch j.state.Load() {
		case serverHung:
			<-release
		case serverDies:
			panic(http.ErrAbortHandler)
		}
		answers.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{j.cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: j.roots,
		SessionTicketsDisabled: true,
		Time: func() time.Time {
			if j.state.Load() == hostExpired {
				return time.Now().AddDate(5, 0, 0)
			}
			return time.Now()
		},
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.EnableHTTP2 = true
	s.StartTLS()
	return s
}

// network carries connections to an address until cut is called: then what is sent arrives
// nowhere, and no connection ends.
func (j *joined) network(address string) (l net.Listener, cut func()) {
	j.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		j.t.Fatal(err)
	}
	var lost atomic.Bool
	carry := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 && !lost.Load() {
				_, err = to.Write(buf[:n])
			}
			if err != nil {
				to.Close()
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", address)
			if err != nil {
				c.Close()
				continue
			}
			go carry(s, c)
			go carry(c, s)
		}
	}()
	return l, func() { lost.Store(true) }
}

// runAgent answers pam_postern until stop is called.
func (j *joined) runAgent() (stop func()) {
	j.t.Helper()
	target, err := j.to.Target()
	if err != nil {
		j.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Config{
			Host: "hv1", Watched: agent.Watched{}, Target: target, Spool: relay.SpoolConfig{Dir: j.spool},
			Logins: agent.Logins{PAM: j.pam}, Log: slog.New(slog.DiscardHandler),
		})
	}()
	for answered := false; !answered; {
		select {
		case err := <-done:
			j.t.Fatalf("the agent ends: %v", err)
		default:
		}
		c, err := net.Dial("unixpacket", j.pam)
		if answered = err == nil; answered {
			c.Close()
		} else {
			posterntest.Pause(j.t)
		}
	}
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			j.t.Error(err)
		}
		target.Client.CloseIdleConnections()
	})
}
