package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"html"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ssh"
)

// patience is how long a test waits for what must happen, on a machine that may be
// busy with others.
const patience = 2 * time.Minute

// portalRig is a portal over a real store, authority and mail server, served
// over TLS with client certificates asked for.
type portalRig struct {
	makers string // the file with makers of YubiKeys
	*portal.Portal
	db    *store.DB
	ca    *ca.Authority
	mail  *posterntest.Mailbox
	url   string
	roots *x509.CertPool
	lose  atomic.Pointer[string] // path of the next form whose answer is lost on its way; nil: none

	requests struct {
		sync.Mutex
		strings.Builder
	}
}

// newPortalRig starts a portal. The configuration may be changed beforehand;
// members of the group "admin" are administrators.
func newPortalRig(t *testing.T, change func(*portal.Config)) *portalRig {
	t.Helper()
	return newReachingRig(t, change, reach.Config{})
}

func newReachingRig(t *testing.T, change func(*portal.Config), look reach.Config) *portalRig {
	t.Helper()
	st, err := state.Create(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	rig := &portalRig{db: st.Store, mail: posterntest.NewMailbox(t), makers: st.Path(state.MakersFile)}
	if rig.ca, err = ca.Init(t.Context(), ca.Config{Name: "Example", Makers: rig.makers}, rig.db.CA()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	rig.url = "https://localhost:" + port
	c := portal.Config{URL: rig.url, Name: "Example"}
	if change != nil {
		change(&c)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	one, err := NewOneTime(st, Mappings, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	rig.Portal, err = newPortal(t.Context(), rig.db, rig.ca, portalOptions{
		Config: c, Reach: look, Mail: rig.mail.URL, Log: log,
		Keyring:  portalKeyring{st, one.Keys, one.Checker, rig.ca},
		Identify: rig.identify,
		Admin: func(r *http.Request) bool {
			name, _, ok := rig.identify(r)
			who, err := rig.db.People().Person(r.Context(), name)
			return ok && err == nil && strings.Contains(strings.Join(who.Groups, " "), "admin")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	rig.serve(t, l)
	return rig
}

func (rig *portalRig) serve(t *testing.T, l net.Listener) {
	t.Helper()
	key, csr := clientCSR(t)
	issued, err := rig.ca.IssueCSR(t.Context(), csr, ca.SignRequest{
		Profile: ca.ProfileServer,
		Names:   []string{"localhost"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rig.roots = x509.NewCertPool()
	rig.roots.AddCert(rig.ca.Root())
	clients := x509.NewCertPool()
	for _, c := range rig.ca.Intermediates(ca.Client) {
		clients.AddCert(c)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{
		Handler:  http.HandlerFunc(rig.answer),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}}
	srv.TLS = &tls.Config{
		Certificates: []tls.Certificate{{
			Certificate: [][]byte{issued.Leaf.Raw, issued.Chain[0].Raw},
			PrivateKey:  key,
		}},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
	}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { rig.Run(ctx); close(done) }()
	t.Cleanup(func() {
		srv.Close()
		stop()
		<-done
	})
}

// answer answers as the portal does, unless the answer is to be lost.
func (rig *portalRig) answer(w http.ResponseWriter, r *http.Request) {
	rig.listen(r)
	path := rig.lose.Load()
	if path == nil || r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, *path) {
		rig.ServeHTTP(w, r)
		return
	}
	rig.lose.Store(nil)
	rig.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// listen keeps what a request says, for [portalRig.heard].
func (rig *portalRig) listen(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	rig.requests.Lock()
	defer rig.requests.Unlock()
	fmt.Fprintf(&rig.requests.Builder, "%s %s\n%v\n%s\n%v\n", r.Method, r.RequestURI, r.Header, body, err)
}

// heard returns all requests so far, as they came.
func (rig *portalRig) heard() string {
	rig.requests.Lock()
	defer rig.requests.Unlock()
	return rig.requests.String()
}

// loses has the answer to the next form that is sent to a path lost on its way.
func (rig *portalRig) loses(path string) { rig.lose.Store(&path) }

// identify does what the front door does: the certificate was verified in the
// handshake, and its credential must be active now.
func (rig *portalRig) identify(r *http.Request) (person, serial string, ok bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", "", false
	}
	serial = ca.SerialString(r.TLS.PeerCertificates[0].SerialNumber)
	c, err := rig.db.People().Credential(r.Context(), postern.X509Certificate, serial)
	return c.Person, serial, err == nil && c.Status == postern.CredentialActive
}

// person adds a person.
func (rig *portalRig) person(t *testing.T, name string, groups ...string) postern.Person {
	t.Helper()
	p := postern.Person{Name: name, Email: name + "@example.com", Groups: groups}
	if err := rig.db.People().AddPerson(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	p, err := rig.db.People().Person(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// people is what commands do to people.
func (rig *portalRig) people() people.Directory {
	return people.Directory{DB: rig.db, Authority: rig.ca}
}

// freshKey makes an SSH key, and its line of authorized_keys.
func freshKey() (ed25519.PrivateKey, []byte, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, nil, err
	}
	return key, ssh.MarshalAuthorizedKey(p), nil
}

// visitor is an HTTP client of the portal, perhaps with a certificate.
type visitor struct {
	t   *testing.T
	rig *portalRig
	*http.Client
	serial string
}

// newVisitor is a visitor without a certificate.
func (rig *portalRig) newVisitor(t *testing.T) *visitor {
	return rig.visitor(t, nil, "")
}

// visitorAt is a visitor without a certificate from the address 127.0.0.host.
func (rig *portalRig) visitorAt(t *testing.T, host int) *visitor {
	v := rig.visitor(t, nil, "")
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(host))}}
	v.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, address string) (net.Conn, error) {
		return d.DialContext(ctx, "tcp4", address)
	}
	return v
}

func (rig *portalRig) visitor(t *testing.T, certs []tls.Certificate, serial string) *visitor {
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: rig.roots, Certificates: certs},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &visitor{t, rig, &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}, serial}
}

// enrolled is a new person who has enrolled a device.
func (rig *portalRig) enrolled(t *testing.T, name string, groups ...string) *visitor {
	t.Helper()
	v, _ := rig.withCodes(t, name, groups...)
	return v
}

// withCodes is enrolled, and returns the recovery codes that came with it.
func (rig *portalRig) withCodes(t *testing.T, name string, groups ...string) (v *visitor, codes []string) {
	t.Helper()
	who := rig.person(t, name, groups...)
	made, err := rig.Links.Device(t.Context(), postern.Actor{}, who)
	if err != nil {
		t.Fatal(err)
	}
	v, page := rig.newVisitor(t).enrol(made.Code, "laptop")
	if v == nil {
		t.Fatal(name, "could not enrol")
	}
	for _, m := range recoveryRE.FindAllStringSubmatch(page.body, -1) {
		codes = append(codes, m[1])
	}
	return v, codes
}

// answer is an HTTP answer, read.
type answer struct {
	*http.Response
	body string
}

func (v *visitor) do(req *http.Request) answer {
	v.t.Helper()
	resp, err := v.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return answer{resp, string(body)}
}

func (v *visitor) get(path string) answer {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.rig.url+path, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	return v.do(req)
}

var csrfRE = regexp.MustCompile(`name="csrf" value="([0-9a-f]+)"`)

// post sends a form; a person's token is fetched from a page of theirs first.
func (v *visitor) post(path string, fields ...string) answer {
	v.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	if v.serial != "" && !form.Has("csrf") {
		m := csrfRE.FindStringSubmatch(v.get("/certificates/new").body)
		if m != nil {
			form.Set("csrf", m[1])
		}
	}
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.rig.url+path,
		strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return v.do(req)
}

// multipartForm makes a form with a file, as a browser without script sends it.
func (v *visitor) upload(path, file, content string, fields ...string) answer {
	v.t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = w.WriteField(fields[i], fields[i+1])
	}
	part, _ := w.CreateFormFile(file, "my.csr")
	_, _ = io.WriteString(part, content)
	_ = w.Close()
	req, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.rig.url+path, &b)
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", w.FormDataContentType())
	return v.do(req)
}

// enrol uses a link without JavaScript, and returns the person with the
// certificate that they got, or nil.
func (v *visitor) enrol(code, label string, more ...string) (*visitor, answer) {
	v.t.Helper()
	key, csr := clientCSR(v.t)
	a := v.upload("/enrol", "csrfile", string(csr), append([]string{"code", code, "label", label}, more...)...)
	if a.StatusCode != 200 {
		return nil, a
	}
	return v.rig.with(v.t, key, a.body), a
}

// with returns a visitor with the certificate that a page shows.
func (rig *portalRig) with(t *testing.T, key *ecdsa.PrivateKey, page string) *visitor {
	t.Helper()
	cert := tls.Certificate{PrivateKey: key}
	for rest := []byte(html.UnescapeString(page)); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	if len(cert.Certificate) == 0 {
		t.Fatalf("no certificate in the page:\n%s", page)
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return rig.visitor(t, []tls.Certificate{cert}, ca.SerialString(leaf.SerialNumber))
}

// clientCSR makes a key and a request (PEM) for it.
func clientCSR(t *testing.T, names ...string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key := posterntest.NewKey(t)
	return key, csrOf(t, key, names...)
}

func csrOf(t *testing.T, key any, names ...string) []byte {
	t.Helper()
	tmpl := &x509.CertificateRequest{}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

var (
	linkRE = regexp.MustCompile(`https://\S+#([a-z2-7]{32})`)
	codeRE = regexp.MustCompile(`(?m)^    ((?:[a-z2-7]{4}-){7}[a-z2-7]{4})$`)
)

// codeIn returns the code of a message's link.
func codeIn(t *testing.T, m posterntest.Mail) string {
	t.Helper()
	found := codeRE.FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no code in the message:\n%s", m.Text)
	}
	return found[1]
}

// main returns what a page says, without its frame and markup.
func (a answer) main() string {
	_, s, ok := strings.Cut(a.body, "<main")
	if !ok {
		return a.body
	}
	s, _, _ = strings.Cut(s, "</main>")
	s = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(s, "")
	return regexp.MustCompile(`\n\s*`).ReplaceAllString(s[:min(len(s), 1500)], "\n")
}

// says fails unless the answer has the status and the text.
func (a answer) says(t *testing.T, status int, text string) {
	t.Helper()
	if a.StatusCode != status || !strings.Contains(a.body, text) {
		t.Errorf("%s %s: %d, want %d with %q in:\n%s", a.Request.Method, a.Request.URL.Path, a.StatusCode, status,
			text, a.main())
	}
}
