package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/sign"
)

// maxAnswer bounds what is read of a server's answer, bytes.
const maxAnswer = 1 << 20

// signRequest is what a server's /ssh/sign is asked.
type signRequest struct {
	PublicKey string `json:"public_key"` // as in authorized_keys
	Person    string `json:"person,omitempty"`
	Code      string `json:"code,omitempty"`
}

// server is a Postern server.
type server struct {
	url  *url.URL
	http *http.Client
}

func (l Login) connect() (server, error) {
	u, err := serverURL(l.Server)
	if err != nil {
		return server{}, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.RootCAs, err = ReadRoots(l.CA); err != nil {
		return server{}, err
	}
	if l.Cert != "" {
		key := l.CertKey
		if key == "" {
			key = l.Cert
		}
		pair, err := tls.LoadX509KeyPair(l.Cert, key)
		if err != nil {
			return server{}, postern.Errorf(postern.Invalid, "client certificate: %w", err)
		}
		// Send it whatever names the server lists.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return server{u, &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// serverURL returns the https URL of a server that is named by it or by its host.
func serverURL(name string) (*url.URL, error) {
	text := name
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, postern.Errorf(postern.Invalid, "%q is not the name or https URL of a server", name)
	}
	return u, nil
}

// ReadRoots reads the CAs to trust from a PEM file: nil for "", which stands for
// the system's.
func ReadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, postern.Errorf(postern.Invalid, "%s holds no certificate", file)
	}
	return roots, nil
}

// sign asks the server for a certificate.
func (s server) sign(ctx context.Context, r signRequest) (signed sign.Signed, err error) {
	if err := s.ask(ctx, http.MethodPost, "/ssh/sign", r, &signed); err != nil {
		return signed, err
	}
	if signed.Line == "" {
		return signed, errNoCertificate
	}
	return signed, nil
}

// ask sends a JSON object, nil for none, and reads one.
func (s server) ask(ctx context.Context, method, path string, r, answer any) error {
	defer s.http.CloseIdleConnections()
	var body io.Reader
	if r != nil {
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	path, query, _ := strings.Cut(path, "?")
	u := s.url.JoinPath(path)
	u.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp, b)
	}
	if json.Unmarshal(b, answer) != nil {
		return postern.Errorf(postern.Unavailable, "the server's answer cannot be read")
	}
	return nil
}

var errNoCertificate = postern.Errorf(postern.Unavailable, "the server's answer is not a certificate")

// refusal is the error that a server answers with.
func refusal(resp *http.Response, answer []byte) error {
	var said struct{ Error, Hint string }
	if json.Unmarshal(answer, &said) != nil || said.Error == "" {
		said.Error = "the server answers " + resp.Status
	}
	code := postern.Denied
	if resp.StatusCode >= http.StatusInternalServerError {
		code = postern.Unavailable
	}
	return postern.Errorf(code, "%s", said.Error).WithHint("%s", said.Hint)
}
