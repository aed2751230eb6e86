package front

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/postern-project/postern"
	_ "github.com/postern-project/postern/front/standard"
	"github.com/postern-project/postern/internal/posterntest"
)

// holder is a CA of a test, or a person with a certificate.
type holder struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pass []*x509.Certificate // CAs shown along
}

func issue(t testing.TB, by *holder, change func(*x509.Certificate)) *holder {
	t.Helper()
	if by == nil {
		by = new(holder)
	}
	cert, key := posterntest.Issue(t, by.cert, by.key, change)
	return &holder{cert: cert, key: key}
}

// polled returns the front's state after a poll, and the trust in Postern's own CA.
func polled(t *testing.T) (*live, *trust) {
	t.Helper()
	l := current()
	l.poll(t.Context())
	own, err := l.ownTrust()
	if err != nil {
		t.Fatal(err)
	}
	return l, own
}

func authority(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage = x509.KeyUsageCertSign
		c.ExtKeyUsage = nil
	}
}

func person(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name, Organization: []string{"Example"}}
		c.EmailAddresses = []string{name + "@example.com"}
	}
}

func (h *holder) tls() *tls.Certificate {
	chain := [][]byte{h.cert.Raw}
	for _, c := range h.pass {
		chain = append(chain, c.Raw)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: h.key, Leaf: h.cert}
}

func (h *holder) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.cert.Raw})
}

// people is a Registry that a test changes.
type people struct {
	mu          sync.Mutex
	generation  int64
	away        error
	credentials map[string]postern.Credential
	persons     map[string]postern.Person
	events      []postern.Event
}

func newPeople() *people {
	return &people{
		credentials: make(map[string]postern.Credential), persons: make(map[string]postern.Person),
		generation: 1,
	}
}

func (p *people) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.generation++
}

func (p *people) add(h *holder, name string) {
	p.change(func() {
		p.persons[name] = postern.Person{Name: name, Email: name + "@example.com", Status: postern.PersonActive}
		p.credentials[h.cert.SerialNumber.Text(16)] = postern.Credential{
			Person: name,
			Status: postern.CredentialActive,
		}
	})
}

func (p *people) Certificate(_ context.Context, serial string, _ *x509.Certificate) (postern.Credential,
	postern.Person, error,
) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, ok := p.credentials[serial]
	if !ok && p.away == nil {
		return c, postern.Person{}, postern.Errorf(postern.NotFound, "no certificate %s", serial)
	}
	return c, p.persons[c.Person], p.away
}

func (p *people) PersonByEmail(_ context.Context, email string) (postern.Person, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.persons {
		if x.Email == email {
			return x, p.away
		}
	}
	return postern.Person{}, postern.Errorf(postern.NotFound, "no person has %s", email)
}

func (p *people) Generation(context.Context) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.generation, p.away
}

func (p *people) Log(_ context.Context, events ...postern.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, events...)
	return nil
}

// rig is a CA and people, in use by the modules.
type rig struct {
	*people
	root, server, client *holder
	dir                  string
	global               string // a line more of the configuration's global options
	log                  string // where Caddy logs to; "" is nowhere
}

// newRig makes a rig and lets the modules use it.
func newRig(t testing.TB, more ...func(*Runtime)) *rig {
	t.Helper()
	h := &rig{people: newPeople(), dir: t.TempDir()}
	h.root = issue(t, nil, authority("Test Root"))
	h.server = issue(t, h.root, authority("Test Server CA"))
	h.client = issue(t, h.root, authority("Test Client CA"))
	r := Runtime{
		Registry: h.people, Generation: h.Generation, Log: h.Log,
		ClientCAs: func() []*x509.Certificate { return []*x509.Certificate{h.client.cert} },
		Issue:     h.issueServer,
	}
	for _, f := range more {
		f(&r)
	}
	t.Cleanup(Use(r))
	return h
}

func (h *rig) issueServer(_ context.Context, csr *x509.CertificateRequest) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, h.server.cert, csr.PublicKey, h.server.key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), h.server.pem()...), nil
}

// person issues a certificate of the rig's own CA to a person that its store
// knows.
func (h *rig) person(t testing.TB, name string) *holder {
	t.Helper()
	c := issue(t, h.client, person(name))
	h.add(c, name)
	return c
}

// file writes a file into the rig's directory.
func (h *rig) file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// serve runs a Caddyfile until the test ends. HTTPS and HTTP stand in it for free ports,
// which serve returns.
func (h *rig) serve(t testing.TB, caddyfile string, change ...func([]byte) []byte) (https, http int) {
	t.Helper()
	https, http = posterntest.FreePort(t), posterntest.FreePort(t)
	h.load(t, https, http, caddyfile, change...)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return https, http
}

func (h *rig) load(t testing.TB, https, http int, caddyfile string, change ...func([]byte) []byte) {
	t.Helper()
	text := strings.NewReplacer("HTTPS", fmt.Sprint(https), "HTTP", fmt.Sprint(http), "DIR", h.dir).Replace(caddyfile)
	text = fmt.Sprintf("{\n\thttps_port %d\n\thttp_port %d\n\tdefault_bind 127.0.0.1\n\tlog {\n\t\toutput %s\n\t}\n"+
		"\t%s\n}\n%s",
		https, http, cmp.Or(h.log, "discard"), h.global, text)
	config, _, err := Adapt([]byte(text), "Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	if config, err = (Defaults{Storage: filepath.Join(h.dir, "caddy")}).Apply(config); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		config = f(config)
	}
	if err := caddy.Load(config, true); err != nil {
		t.Fatalf("%v\n%s", err, indent(config))
	}
	for _, name := range siteNames.FindAllStringSubmatch(text, -1) {
		h.await(t, https, name[1])
	}
}

var siteNames = regexp.MustCompile(`(?m)^([a-z.]*localhost):\d+ \{`)

// await waits until a site's certificate has been issued.
func (h *rig) await(t testing.TB, port int, name string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		config := h.clientConfig(nil)
		config.ServerName = name
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
		if err == nil {
			c.Close()
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
}

func indent(config []byte) []byte {
	var v any
	if json.Unmarshal(config, &v) != nil {
		return config
	}
	out, _ := json.MarshalIndent(v, "", "  ")
	return out
}

// clientConfig returns the TLS configuration of a client that trusts the rig's CA
// and shows a certificate, whichever the server asks for.
func (h *rig) clientConfig(who *holder) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(h.root.cert)
	c := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	if who != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who.tls(), nil }
	}
	return c
}

// client returns an HTTP client of a person; every host is 127.0.0.1.
func (h *rig) client1(t testing.TB, who *holder, change ...func(*tls.Config)) *http.Client {
	t.Helper()
	c := h.clientConfig(who)
	for _, f := range change {
		f(c)
	}
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true, DialContext: dialLocal}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

func dialLocal(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
}

func get(t testing.TB, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestGuardedAndPublicPages(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/index.html", "public")
	h.file(t, "www/admin/index.html", "SECRET")
	https, http := h.serve(t, `
localhost:HTTPS {
	root * DIR/www
	require /admin* {
		person alice
	}
	file_server
}
http://localhost:HTTP {
	root * DIR/www
	require /admin* {
		person alice
	}
	file_server
}
`)
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	base := fmt.Sprintf("https://localhost:%d", https)
	for _, c := range []struct {
		who    *holder
		path   string
		status int
		body   string
	}{
		{nil, "/", 200, "public"},
		{alice, "/", 200, "public"},
		{nil, "/admin/", 403, "showed no certificate"},
		{alice, "/admin/", 200, "SECRET"},
		{bob, "/admin/", 403, "for other people"},
	} {
		status, body := get(t, h.client1(t, c.who), base+c.path)
		if status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%v %s: %d %s", c.who != nil, c.path, status, body)
		}
	}
	resp, err := h.client1(t, nil).Get(fmt.Sprintf("http://localhost:%d/admin/?x=1", http))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if want := base + "/admin/?x=1"; resp.StatusCode != 301 || resp.Header.Get("Location") != want {
		t.Errorf("plain HTTP: %d %s, want %s", resp.StatusCode, resp.Header.Get("Location"), want)
	}
}

// TestAClosedPathAnswersWithItsStatus requests a path that is closed to all clients, with
// the status that its guard names.
func TestAClosedPathAnswersWithItsStatus(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/index.html", "public")
	closed := "\trequire /%d* {\n\t\tanyone\n\t\trule false\n\t\tstatus %[1]d\n\t}\n"
	site := "root * DIR/www\n\tfile_server\n" + fmt.Sprintf(closed, 404) + fmt.Sprintf(closed,
		410) + fmt.Sprintf(closed, 451) + fmt.Sprintf(closed, 503) + "}\n"
	https, http := h.serve(t, "localhost:HTTPS {\n\t"+site+"http://localhost:HTTP {\n\t"+site)
	for _, base := range []string{
		fmt.Sprintf("https://localhost:%d/", https),
		fmt.Sprintf("http://localhost:%d/", http),
	} {
		for _, want := range []int{404, 410, 451, 503} {
			for _, accept := range []string{"text/html", "application/json"} {
				r := httptest.NewRequestWithContext(t.Context(), "GET", base+fmt.Sprint(want)+"/x", nil)
				r.RequestURI, r.Header["Accept"] = "", []string{accept}
				resp, err := h.client1(t, nil).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != want || strings.Contains(string(body), "certificate") {
					t.Errorf("%s%d: %d %s", base, want, resp.StatusCode, body)
				}
			}
		}
	}
}
