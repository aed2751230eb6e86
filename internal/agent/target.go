package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/relay"
)

// Target is a server that takes events.
type Target struct {
	URL    string
	Client *http.Client
}

// Server names a server that takes events.
type Server struct {
	Socket string // of the server on this host, which is used without a URL
	URL    string // such as https://id.example.com
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
	case s.URL == "" && s.Credentials != (Credentials{}):
		return nil, postern.Errorf(postern.Invalid,
			"the certificate, its key and its authority are for a server on another host").
			WithHint("name that server")
	case s.URL == "":
		t, transport := newTarget("http://postern")
		transport.DialContext = DialSocket(s.Socket)
		return t, nil
	case s.Cert == "" || s.Key == "":
		return nil, postern.Errorf(postern.Invalid, "a server on another host needs a client certificate and its key").
			WithHint("issue one to a person of the group agents, on the server")
	}
	return remoteTarget(s.URL, s.Credentials)
}

func remoteTarget(address string, c Credentials) (*Target, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" ||
		u.User != nil {
		return nil, postern.Errorf(postern.Invalid, "%q is not an address such as https://id.example.com", address)
	}
	t, transport := newTarget("https://" + u.Host)
	transport.Proxy = http.ProxyFromEnvironment
	transport.TLSClientConfig, err = c.config()
	return t, err
}

func newTarget(base string) (*Target, *http.Transport) {
	transport := &http.Transport{
		ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second,
	}
	// Nothing that is sent goes where a server redirects to.
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Target{URL: base + relay.Path, Client: client}, transport
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
