package join

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/host"
)

// How long one request may take, and how far clocks may be apart before that is named
// as the reason why certificates do not verify.
const (
	requestTime = 30 * time.Second
	clockApart  = 5 * time.Minute
)

// conn is a server that was verified.
type conn struct {
	url    string
	roots  *x509.CertPool
	public bool // verified by an authority that the host trusts, not by the root
	http   *http.Client
	host   string                             // the name by which the server knows this host
	report func() (postern.HostReport, error) // what the host says about itself
}

// reach verifies the server: by the root that the token names, or by those that the host has
// from before. Nothing secret is sent before.
func (h Host) reach(ctx context.Context, o Options, s State) (*conn, error) {
	base, err := serverURL(cmp.Or(o.Server, s.Server))
	if err != nil {
		return nil, err
	}
	roots, err := h.roots(ctx, base, o.Token)
	if err != nil {
		return nil, err
	}
	c := &conn{url: base, host: s.Host, roots: x509.NewCertPool()}
	for _, root := range roots {
		c.roots.AddCert(root)
	}
	if h.through != nil {
		c.url, c.http = h.through.url, h.through.http
		return c, nil
	}
	c.http = h.client(&tls.Config{RootCAs: c.roots})
	if o.Token == "" && !s.Public {
		return c, nil // each request verifies it
	}
	err = c.probe(ctx)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		c.public, c.http = true, h.client(&tls.Config{RootCAs: h.public})
		err = c.probe(ctx)
	}
	return c, err
}

// roots returns the root certificate that the token names, fetched from the server and
// compared; without a token, those that the host has.
func (h Host) roots(ctx context.Context, base, token string) ([]*x509.Certificate, error) {
	if token == "" {
		data, err := os.ReadFile(h.path(RootFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNotJoined
		}
		if err != nil {
			return nil, err
		}
		return parseChain(data)
	}
	t, err := host.ParseToken(token)
	if err != nil {
		return nil, err
	}
	// It is not known yet who answers: what comes is compared with the token's fingerprint.
	client := h.client(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // compared below
	data, date, err := get(ctx, client, base+host.RootsPath)
	if err != nil {
		return nil, err
	}
	list, _ := parseChain(data) // an empty one has none that the token names
	for _, c := range list {
		if host.Fingerprint(c) == t.Root {
			return []*x509.Certificate{c}, checkClock(c, date, time.Now())
		}
	}
	return nil, postern.Errorf(postern.Denied, "%s is not the server that the token is for: its root certificate is "+
		"another one", base).WithHint("see whether the address is right and nothing answers in its place")
}

// checkClock fails where this host's clock is so wrong that certificates cannot be
// verified.
func checkClock(root *x509.Certificate, server, now time.Time) error {
	wrong := now.Before(root.NotBefore) || now.After(root.NotAfter)
	if !server.IsZero() && now.Sub(server).Abs() >= clockApart {
		return postern.Errorf(postern.Unavailable, "this host's clock says %s, the server's %s",
			now.UTC().Format(time.RFC3339), server.UTC().Format(time.RFC3339)).
			WithHint("set the clock, then join again")
	}
	if wrong {
		return postern.Errorf(postern.Unavailable, "the root certificate is not valid on %s",
			now.UTC().Format(time.DateOnly)).WithHint("set the clock, then join again")
	}
	return nil
}

// client returns an HTTP client that shows the host's certificate where it has one.
func (h Host) client(c *tls.Config) *http.Client {
	c.MinVersion = tls.VersionTLS13
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(h.path(CertFile), h.path(KeyFile))
		if err != nil || c.InsecureSkipVerify {
			return new(tls.Certificate), nil // none
		}
		return &pair, nil
	}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: c, ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
	return &http.Client{
		Timeout: requestTime, Transport: t,
		// Nothing that is sent goes where a server redirects to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// probe connects, and sends nothing that matters.
func (c *conn) probe(ctx context.Context) error {
	_, _, err := get(ctx, c.http, c.url+host.RootsPath)
	return err
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, time.Time{}, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, time.Time{}, unreachable(err)
	}
	defer res.Body.Close()
	date, _ := http.ParseTime(res.Header.Get("Date"))
	if res.StatusCode != http.StatusOK {
		return nil, date, postern.Errorf(postern.Unavailable, "%s answers %s", url, res.Status).
			WithHint("see whether the address is that of the portal")
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, host.MaxAnswer))
	return body, date, err
}

func unreachable(err error) error {
	e := postern.Errorf(postern.Unavailable, "%w", err)
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return e.WithHint("set the clock, if it is wrong")
	}
	return e.WithHint("see whether the server runs and this host can reach it")
}

// post sends a request, signed with the token if there is one, and returns the answer.
func (c *conn) post(ctx context.Context, path string, r host.Request, token *host.Token) (host.Answer, error) {
	r.Nonce = make([]byte, 16)
	rand.Read(r.Nonce)
	if token != nil {
		r.Token = token.Public()
	}
	request, err := json.Marshal(r)
	if err != nil {
		return host.Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, bytes.NewReader(request))
	if err != nil {
		return host.Answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != nil {
		req.Header.Set(host.SignatureHeader, base64.StdEncoding.EncodeToString(token.Sign(request)))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return host.Answer{}, unreachable(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, host.MaxAnswer))
	if err != nil {
		return host.Answer{}, unreachable(err)
	}
	if res.StatusCode == http.StatusOK {
		return host.OpenAnswer(body, request, c.roots)
	}
	var a host.Answer
	if json.Unmarshal(body, &a) == nil && a.Error != "" {
		return a, postern.Errorf(codeOf(res.StatusCode), "the server says: %s", a.Error).WithHint("%s", a.Hint)
	}
	return a, postern.Errorf(postern.Unavailable, "the server answers %s", res.Status)
}

// codeOf returns the code of an HTTP status.
func codeOf(status int) postern.Code {
	for _, c := range []postern.Code{postern.Invalid, postern.Denied, postern.NotFound, postern.Conflict} {
		if c.HTTPStatus() == status {
			return c
		}
	}
	return postern.Unavailable
}

// serverURL returns the base URL of a server that is named by it or by its host.
func serverURL(name string) (string, error) {
	if !strings.Contains(name, "://") {
		name = "https://" + name
	}
	u, err := url.Parse(name)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" ||
		u.User != nil {
		return "", postern.Errorf(postern.Invalid, "%q is not an address such as https://id.example.com", name)
	}
	return "https://" + u.Host, nil
}
