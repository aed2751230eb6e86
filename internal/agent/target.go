package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/remote"
)

// Target is a server, or several of one installation, that takes events and answers
// questions.
type Target struct {
	Base   string // URL without a path; Client sends to a server that answers
	Client *http.Client
}

// Server names the servers of an installation.
type Server struct {
	Socket string   // of the server on this host, which is used without URLs
	URLs   []string // such as https://id.example.com; they are tried in turn
	Credentials
}

// Credentials are the PEM files of a TLS client.
type Credentials struct {
	Cert, Key string
	CA        string // of the server's certificate; "" means those that this host trusts
}

// Target returns how to reach the server, or an Invalid error.
func (s Server) Target() (*Target, error) {
	switch {
	case len(s.URLs) == 0 && s.Credentials != (Credentials{}):
		return nil, postern.Errorf(postern.Invalid,
			"the certificate, its key and its authority are for a server on another host").
			WithHint("name that server")
	case len(s.URLs) == 0:
		t, transport := newTarget("http://postern")
		transport.DialContext = DialSocket(s.Socket)
		return t, nil
	case s.Cert == "" || s.Key == "":
		return nil, postern.Errorf(postern.Invalid, "a server on another host needs a client certificate and its key").
			WithHint("issue one to a person of the group agents, on the server")
	}
	servers, err := parseServers(s.URLs)
	if err != nil {
		return nil, err
	}
	c, err := s.config()
	if err != nil {
		return nil, err
	}
	return remoteTarget(servers, c), nil
}

// Reach returns how to reach the server until stop is called. Root reaches one on another
// host through a process without rights, by a socket in dir.
func (s Server) Reach(ctx context.Context, dir string, log *slog.Logger) (t *Target, stop func(), err error) {
	t, err = s.Target()
	if err == nil && len(s.URLs) > 0 && os.Geteuid() == 0 {
		return s.separate(ctx, dir, log)
	}
	return t, func() {}, err
}

// network is what a process that talks to the network is told.
type network struct {
	Servers       []string
	Cert, Key, CA []byte // PEM
}

// network reads what such a process is told, as JSON.
func (s Server) network() (text []byte, err error) {
	n := network{Servers: s.URLs}
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{s.Cert, &n.Cert}, {s.Key, &n.Key}, {s.CA, &n.CA}} {
		if f.path == "" {
			continue
		}
		if *f.to, err = os.ReadFile(f.path); err != nil {
			return nil, err
		}
	}
	defer clear(n.Key)
	return json.Marshal(n)
}

// target returns how that process reaches the servers.
func (n network) target() (*Target, error) {
	pair, err := tls.X509KeyPair(n.Cert, n.Key)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "the client certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if len(n.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM(n.CA)
	}
	servers, err := parseServers(n.Servers)
	if err != nil {
		return nil, err
	}
	return remoteTarget(servers, c), nil
}

func parseServers(addresses []string) ([]*url.URL, error) {
	if len(addresses) > remote.MaxServers {
		return nil, postern.Errorf(postern.Invalid, "an agent has at most %d servers", remote.MaxServers)
	}
	servers := make([]*url.URL, len(addresses))
	for i, address := range addresses {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" ||
			u.User != nil {
			return nil, postern.Errorf(postern.Invalid, "%q is not an address such as https://id.example.com", address)
		}
		servers[i] = &url.URL{Scheme: u.Scheme, Host: u.Host}
	}
	return servers, nil
}

func remoteTarget(servers []*url.URL, c *tls.Config) *Target {
	t, transport := newTarget(servers[0].String())
	transport.Proxy = http.ProxyFromEnvironment
	// One connection lasts, and is given up when the server does not answer on it.
	transport.IdleConnTimeout = 0
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout}
	transport.TLSClientConfig = c
	t.Client.Transport = &inTurn{servers: servers, next: transport}
	return t
}

// When a connection to another host is tried on which nothing was received, and how long
// the answer may take.
const (
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

func newTarget(base string) (*Target, *http.Transport) {
	transport := &http.Transport{
		ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
	}
	// Nothing that is sent goes where a server redirects to.
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Target{Base: base, Client: client}, transport
}

// DialSocket makes an HTTP client connect to a Unix socket, whatever the address is.
func DialSocket(path string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// config returns the configuration of a client that reads its certificate for each
// connection, so that a renewed one takes effect.
func (o Credentials) config() (*tls.Config, error) {
	if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
		return nil, postern.Errorf(postern.Invalid, "the client certificate: %w", err)
	}
	c := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
			return &pair, err
		},
	}
	if o.CA == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, postern.Errorf(postern.Invalid, "no certificate in %s", o.CA)
	}
	return c, nil
}
