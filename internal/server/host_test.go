package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/agent"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/join"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/remote"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestAJoinedHost joins a server as a host does, and tries what its certificate is good for.
func TestAJoinedHost(t *testing.T) {
	config := filepath.Join(t.TempDir(), "Caddyfile")
	r := startServer(t, func(o *Options) {
		writeFile(t, config, fmt.Sprintf(`{
	https_port %[1]d
	http_port %[2]d
	default_bind 127.0.0.1
	postern {
		portal https://localhost:%[1]d
	}
}
https://guarded.localhost:%[1]d {
	tls internal
	require /*
	respond "secret"
}
`, o.HTTPSPort, o.HTTPPort))
		o.Config = config
	})
	st := r.open()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	if err != nil {
		t.Fatal(err)
	}
	r.awaitSite(r.opts.HTTPSPort, "localhost", authority.Root())
	r.awaitSite(r.opts.HTTPSPort, "guarded.localhost", authority.Root())
	directory := NewHostDirectory(people.Directory{DB: st.Store, Authority: authority})
	h, to := joinHost(t, directory)
	files := to.Credentials
	send := func(host string) error {
		return sendOne(t, to, host, agentEvent(host, "vm3"))
	}
	if err := send("hv1"); err != nil {
		t.Errorf("an event of its own: %v", err)
	}
	if err := send("hv2"); err == nil {
		t.Error("it may send events of another host")
	}
	decisionsAreSigned(t, to, authority.Root())
	if status, body := showing(t, files, r.opts.HTTPSPort); status != http.StatusForbidden ||
		strings.Contains(body, "secret") {
		t.Errorf("a guarded location answers a host with %d %q", status, body)
	}
	cutWhileSuspended(t, directory, to)
	setHost(t, directory, postern.HostSuspended)
	if _, err := h.Refresh(t.Context(), nil); postern.CodeOf(err) != postern.Denied {
		t.Errorf("suspended: %v", err)
	}
	setHost(t, directory, postern.HostJoined)
	if _, err := h.Refresh(t.Context(), nil); err != nil {
		t.Errorf("resumed: %v", err)
	}
	setHost(t, directory, postern.HostRemoved)
	if _, err := h.Refresh(t.Context(), nil); postern.CodeOf(err) != postern.Denied {
		t.Errorf("removed: %v", err)
	}
	if err := send("hv1"); err == nil {
		t.Error("a removed host may send events")
	}
}

// decisionsAreSigned asks the server as a host that trusts no decision for the server's own
// certificate.
func decisionsAreSigned(t *testing.T, to agent.Server, root *x509.Certificate) {
	t.Helper()
	target, err := to.Target()
	if err != nil {
		t.Fatal(err)
	}
	defer target.Client.CloseIdleConnections()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	client := *target.Client
	client.Transport = host.VerifyReplies(client.Transport, "hv1",
		func() (*x509.CertPool, error) { return roots, nil })
	ask := remote.Client{URL: target.Base, HTTP: &client}
	if _, err := ask.CheckAccount(t.Context(), "nobody"); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("an account without a person: %v", err)
	}
	if u, err := ask.Watch(t.Context(), remote.Seen{}); err != nil || u.Checkpoint == "" {
		t.Errorf("an update: %+v, %v", u, err)
	}
	res, err := client.Post(target.Base+relay.Path, "application/jsonl", strings.NewReader("no batch"))
	if err != nil {
		t.Fatal(err)
	}
	if res.Body.Close(); res.StatusCode != http.StatusBadRequest {
		t.Errorf("what is no batch of events: %s", res.Status)
	}
}

// joinHost invites the host hv1, and joins it.
func joinHost(t *testing.T, directory HostDirectory) (join.Host, agent.Server) {
	t.Helper()
	list, err := directory.Invite(t.Context(), HostInvite{Names: []string{"HV1"}})
	if err != nil {
		t.Fatal(err)
	}
	root := posterntest.SSHDFiles(t, map[string]string{"etc/ssh/sshd_config": "Port 22\n"})
	fine := func(context.Context) error { return nil }
	h := join.Host{
		Root: root, Version: "1",
		SSHD: setup.Applier{Root: root, Dir: t.TempDir(), Check: fine, Test: fine, Reload: fine},
	}
	if _, err := h.Join(t.Context(), join.Options{
		Server: list[0].Server, Token: list[0].Token, Apply: true,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Refresh(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return h, agent.Server{URLs: []string{list[0].Server}, Credentials: agent.Credentials{
		Cert: filepath.Join(root, join.CertFile), Key: filepath.Join(root, join.KeyFile),
		CA: filepath.Join(root, join.RootFile),
	}}
}

// cutWhileSuspended suspends a host whose agent waits for an update: the server ends its
// connection before it answers. Where this process or the server was too slow, it answered
// before, or refused the request as a new one; then that is tried again.
func cutWhileSuspended(t *testing.T, d HostDirectory, to agent.Server) {
	t.Helper()
	var all []string
	for range 20 {
		target, err := to.Target()
		if err != nil {
			t.Fatal(err)
		}
		written, ended := make(chan struct{}, 1), make(chan string, 1)
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) {
				select {
				case written <- struct{}{}:
				default:
				}
			},
		})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.Base+remote.Prefix+"watch?size=0", nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			res, err := target.Client.Transport.RoundTrip(req)
			if err != nil {
				ended <- ""
				return
			}
			res.Body.Close()
			ended <- res.Status
		}()
		<-written
		setHost(t, d, postern.HostSuspended)
		status := <-ended
		target.Client.CloseIdleConnections()
		setHost(t, d, postern.HostJoined)
		if status == "" {
			return
		}
		all = append(all, status)
	}
	t.Errorf("a suspended host's connection is not cut: %q", all)
}

// TestAHostThatAsksForTooMuch has a host ask for certificates of each kind once it has had
// too many: nothing is issued.
func TestAHostThatAsksForTooMuch(t *testing.T) {
	a := HostAuthority{Hosts: storetest.Open(t).Hosts(), Limit: new(host.Limit)} // without a CA, which is not asked
	h := postern.Host{Name: "hv1"}
	var err error
	for err == nil {
		err = a.limit(h.Name)
	}
	_, renewed := a.Renew(t.Context(), postern.Actor{}, host.Shown{Host: h}, nil)
	_, served := a.ServerCertificate(t.Context(), postern.Actor{}, h, nil)
	_, ssh := a.SSHCertificate(t.Context(), postern.Actor{}, h, nil)
	for what, err := range map[string]error{"a client": renewed, "a server": served, "SSH": ssh} {
		if postern.CodeOf(err) != postern.TooMany {
			t.Errorf("a certificate for %s: %v", what, err)
		}
	}
}

func setHost(t *testing.T, d HostDirectory, s postern.HostStatus) {
	t.Helper()
	if _, err := d.SetStatus(t.Context(), "hv1", s); err != nil {
		t.Fatal(err)
	}
}

// showing gets the guarded site with a client certificate.
func showing(t *testing.T, c agent.Credentials, port int) (status int, body string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify:   true, // the site's own certificate is not what is tried
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return d.DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
		},
		DisableKeepAlives: true,
	}}
	res, err := client.Get(fmt.Sprintf("https://guarded.localhost:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
