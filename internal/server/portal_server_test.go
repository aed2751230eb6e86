package server

import (
	"archive/tar"
	"archive/zip"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/reach"
)

// webServer is a web server from which proofs are fetched. Its handler can be changed.
type webServer struct {
	*httptest.Server
	port   int
	answer atomic.Pointer[http.HandlerFunc]
	asked  atomic.Int64
}

// newWebServer starts one on an address of this machine.
func newWebServer(t *testing.T, address string) *webServer {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &webServer{port: l.Addr().(*net.TCPAddr).Port}
	s.Server = &httptest.Server{
		Listener: l,
		Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.asked.Add(1)
			if h := s.answer.Load(); h != nil {
				(*h)(w, r)
				return
			}
			http.NotFound(w, r)
		})},
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *webServer) says(h http.HandlerFunc) { s.answer.Store(&h) }

// proves answers with a text, as a proof's file does.
func (s *webServer) proves(value string) {
	s.says(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, value+"\n") })
}

// serverRig is a portal whose DNS and web server the test has.
type serverRig struct {
	*portalRig
	dns *posterntest.DNS
	web *webServer
}

func newServerRig(t *testing.T) *serverRig {
	t.Helper()
	rig := &serverRig{dns: posterntest.StartDNS(t), web: newWebServer(t, "127.0.0.1:0")}
	rig.portalRig = newReachingRig(t, nil, reach.Config{
		Resolver: rig.dns.Addr, HTTPPort: rig.web.port, Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	return rig
}

// order opens an order and returns its path.
func (v *visitor) order(fields ...string) string {
	v.t.Helper()
	a := v.post("/servers/new", fields...)
	if a.StatusCode != 303 {
		v.t.Fatalf("order: %d %s", a.StatusCode, a.main())
	}
	return a.Header.Get("Location")
}

// proofOf returns the value that proves a name.
func (rig *portalRig) proofOf(t *testing.T, person, name string) string {
	t.Helper()
	p, err := rig.Store.Proof(t.Context(), person, name, "unused")
	if err != nil {
		t.Fatal(err)
	}
	return p.Value
}

func TestServerCertificateByFile(t *testing.T) {
	rig := newServerRig(t)
	dan := rig.enrolled(t, "dan")
	rig.dns.Set(t, "www.example.org", "A 127.0.0.1")
	path := dan.order("names", "WWW.example.org.")
	value := rig.proofOf(t, "dan", "www.example.org")
	page := dan.get(path)
	page.says(t, 200, "<pre>"+value+"</pre>")
	file := regexp.MustCompile(`http://www\.example\.org(/\.well-known/postern/[a-z2-7]+)`).
		FindStringSubmatch(page.body)[1]
	dan.post(path+"/check", "name", "www.example.org", "method", "http").says(t, 400, "answered 404")
	key, csr := clientCSR(t, "www.example.org")
	dan.post(path+"/issue", "csr", string(csr)).says(t, 403, "This name is not proved")
	check := func() answer { return dan.post(path+"/check", "name", "www.example.org", "method", "http") }
	// A server that repeats what it is asked for proves nothing.
	rig.web.says(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, filepath.Base(r.URL.Path)) })
	check().says(t, 400, "with another content")
	rig.web.says(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "There is no %s; %s", r.URL, value)
	})
	check().says(t, 400, "with another content")
	rig.web.says(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != file {
			http.Redirect(w, r, file, http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, value+"\n")
	})
	check().says(t, 303, "")
	_, lying := clientCSR(t, "www.example.org", "www.bank.example")
	dan.post(path+"/issue", "csr", string(lying)).says(t, 400, "www.bank.example, which is not in this order")
	a := dan.post(path+"/issue", "csr", string(csr))
	a.says(t, 303, "")
	page = dan.get(a.Header.Get("Location"))
	page.says(t, 200, "ssl-cert-www.example.org.pem")
	_, other := clientCSR(t, "www.example.org")
	dan.post(path+"/issue", "csr", string(other)).says(t, 409, "This order is done")
	if again := dan.post(path+"/issue", "csr",
		string(csrOf(t, key, "www.example.org"))); again.Header.Get("Location") != a.Header.Get("Location") {
		t.Errorf("the repeated answer is %s", again.Header.Get("Location"))
	}

	// The same names again in one click, for the same key.
	dan.post(a.Header.Get("Location")+"/renew").says(t, 303, "")
	rig.web.says(http.NotFound)
	dan.post(a.Header.Get("Location")+"/renew").says(t, 403, "proof is not there any more")
}

func TestServerCertificateByDNS(t *testing.T) {
	rig := newServerRig(t)
	dan := rig.enrolled(t, "dan")
	path := dan.order("names", "*.example.org example.org")
	dan.post(path+"/check", "name", "*.example.org", "method", "http").says(t, 400, "cannot be proved that way")
	dan.post(path+"/mail", "name", "*.example.org", "to", "admin@example.org").says(t, 400,
		"Choose one of the addresses")
	value := rig.proofOf(t, "dan", "*.example.org")
	dan.post(path+"/check", "name", "*.example.org", "method", "dns").says(t, 400, "no such TXT record")
	rig.dns.Set(t, "_postern-challenge.example.org", "TXT "+value, "TXT "+rig.proofOf(t, "dan", "example.org"))
	for _, name := range []string{"*.example.org", "example.org"} {
		dan.post(path+"/check", "name", name, "method", "dns").says(t, 303, "")
	}
	_, csr := clientCSR(t)

	// A proof that was there at the check, but is not when the certificate is issued.
	rig.dns.Set(t, "_postern-challenge.example.org", `TXT "another person's"`)
	dan.post(path+"/issue", "csr", string(csr)).says(t, 403, "proof is not there any more")
	rig.dns.Set(t, "_postern-challenge.example.org", "TXT "+value, "TXT "+rig.proofOf(t, "dan", "example.org"))
	dan.post(path+"/issue", "csr", string(csr)).says(t, 303, "")
}

func TestServerCertificateByMail(t *testing.T) {
	rig := newServerRig(t)
	dan := rig.enrolled(t, "dan")
	rig.dns.Set(t, "example.org", `CAA 0 contactemail "dns-owner@example.net"`)
	path := dan.order("names", "www.example.org")
	page := dan.get(path)
	for _, address := range []string{"admin@www.example.org", "hostmaster@example.org", "dns-owner@example.net"} {
		page.says(t, 200, `value="`+address+`"`)
	}
	dan.post(path+"/mail", "name", "www.example.org", "to", "dan@evil.example").says(t, 400,
		"Choose one of the addresses")
	dan.post(path+"/mail", "name", "www.example.org", "to", "dns-owner@example.net").says(t, 303, "")
	code := codeIn(t, rig.mail.Take(t, "dns-owner@example.net"))
	s := rig.newVisitor(t)
	s.get("/prove").says(t, 200, "The code of your link")
	s.post("/prove/check", "code", code).says(t, 200, "dan@example.com")
	if _, a := s.enrol(code, "trick"); a.StatusCode != 403 {
		t.Errorf("a link to prove a name enrolled: %d", a.StatusCode)
	}
	_, csr := clientCSR(t)
	dan.post(path+"/issue", "csr", string(csr)).says(t, 403, "This name is not proved")
	s.post("/prove", "code", code, "answer", "yes").says(t, 200, "approved")
	s.post("/prove", "code", code, "answer", "yes").says(t, 403, "used before")
	dan.post(path+"/issue", "csr", string(csr)).says(t, 303, "")
}

func TestInternalNamesByAdministrator(t *testing.T) {
	rig := newServerRig(t)
	boss, dan, eve := rig.enrolled(t, "boss", "admin"), rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	path := dan.order("names", "db.internal, 10.1.2.3")
	_, csr := clientCSR(t, "db.internal", "10.1.2.3")
	dan.post(path+"/issue", "csr", string(csr)).says(t, 403, "not proved")
	dan.post(path+"/ask", "name", "db.internal").says(t, 303, "")
	boss.get("/admin/names").says(t, 200, "db.internal")
	dan.post("/admin/names", "pattern", "*.internal").says(t, 403, "for administrators")
	boss.post("/admin/names", "pattern", "*.com").says(t, 400, "whole public domain")
	boss.post("/admin/names", "pattern", "db.internal", "person", "dan").says(t, 303, "")
	boss.post("/admin/names", "pattern", "10.1.0.0/16", "person", "dan").says(t, 303, "")
	dan.post(path+"/issue", "csr", string(csr)).says(t, 303, "")
	other := eve.order("names", "db.internal")
	_, evil := clientCSR(t)
	eve.post(other+"/issue", "csr", string(evil)).says(t, 403, "not proved")
	again := dan.order("names", "db.internal")
	boss.post("/admin/names/drop", "pattern", "db.internal", "person", "dan").says(t, 303, "")
	_, csr = clientCSR(t)
	dan.post(again+"/issue", "csr", string(csr)).says(t, 403, "not proved")
}

func TestOrdersBelongToOnePerson(t *testing.T) {
	rig := newServerRig(t)
	dan, eve := rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	rig.dns.Set(t, "www.example.org", "A 127.0.0.1")
	path := dan.order("names", "www.example.org")
	rig.web.proves(rig.proofOf(t, "dan", "www.example.org"))
	dan.post(path+"/check", "name", "www.example.org", "method", "http").says(t, 303, "")
	_, csr := clientCSR(t)
	eve.get(path).says(t, 404, "no such order")
	eve.post(path+"/issue", "csr", string(csr)).says(t, 404, "no such order")
	eve.post(path+"/cancel").says(t, 404, "no such order")
	dan.post(path+"/check", "name", "www.bank.example", "method", "http").says(t, 404, "not in this order")

	// What dan proved is not proved for eve.
	rig.web.says(http.NotFound)
	other := eve.order("names", "www.example.org")
	eve.post(other+"/issue", "csr", string(csr)).says(t, 403, "not proved")
	rig.newVisitor(t).get(path).says(t, 403, "needs your certificate")
}

func TestRequestsThatAreRefused(t *testing.T) {
	rig := newServerRig(t)
	dan, eve := rig.enrolled(t, "dan"), rig.enrolled(t, "eve")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	dan.post("/servers/new", "csr", string(csrOf(t, weak, "www.example.org"))).says(t, 400, "2048")
	dan.post("/servers/new", "csr", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").
		says(t, 400, "ertificate request")
	dan.post("/servers/new", "csr", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").says(t, 400,
		"private key")
	dan.post("/servers/new", "csr", strings.Repeat("A", 70<<10)).says(t, 400, "larger than")
	dan.post("/servers/new", "names", "").says(t, 400, "at least one name")
	dan.post("/servers/new", "names", "www.*.example.org").says(t, 400, "whole first label")
	dan.post("/servers/new", "names", "*.co.uk").says(t, 400, "whole public domain")
	dan.post("/servers/new", "names", "<script>").says(t, 400, "not a host name")

	// A key of another person, of a device, of a revoked certificate.
	rig.NamePatterns = []string{"*.internal"}
	_, csr := clientCSR(t)
	path := eve.order("names", "a.internal", "csr", string(csr))
	issued := eve.post(path + "/issue")
	issued.says(t, 303, "")
	dan.post("/servers/new", "names", "b.internal", "csr", string(csr)).says(t, 400, "another person")
	dan.post("/certificates/new", "label", "x", "csr", string(csr)).says(t, 400, "another certificate already")
	eve.post(issued.Header.Get("Location")+"/revoke", "reason", "lost").says(t, 303, "")
	eve.post("/servers/new", "names", "a.internal", "csr", string(csr)).says(t, 400, "that is revoked")
	key, device := clientCSR(t)
	page := dan.post("/certificates/new", "label", "phone", "csr", string(device))
	page.says(t, 200, "phone")
	dan.post("/servers/new", "csr", string(csrOf(t, key, "a.internal"))).says(t, 400, "one of your devices")
}

func TestProofsAreNotFetchedFromPrivateAddresses(t *testing.T) {
	rig := newServerRig(t)
	dan := rig.enrolled(t, "dan")
	inner := newWebServer(t, fmt.Sprintf("127.0.0.2:%d", rig.web.port))
	name := "www.example.org"
	path := dan.order("names", name)
	value := rig.proofOf(t, "dan", name)
	inner.proves(value)
	check := func() answer { return dan.post(path+"/check", "name", name, "method", "http") }

	// A name with a private address.
	for _, inside := range []string{
		"127.0.0.2", "10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1",
		"0.0.0.0",
	} {
		rig.dns.Set(t, name, "A "+inside)
		check().says(t, 400, "private")
	}
	rig.dns.Set(t, name)
	for _, inside := range []string{"::1", "fd00::1", "fe80::1", "::ffff:127.0.0.2", "64:ff9b::7f00:2"} {
		rig.dns.Set(t, name, "AAAA "+inside)
		if a := check(); a.StatusCode != 400 || !strings.Contains(a.body, "Not proved yet") {
			t.Errorf("%s: %d %s", inside, a.StatusCode, a.main())
		}
	}
	rig.dns.Set(t, name)

	// A redirect to a private address, to another port, or to itself.
	rig.dns.Set(t, name, "A 127.0.0.1")
	for _, to := range []string{
		fmt.Sprintf("http://127.0.0.2:%d/x", rig.web.port), "http://inner.example.org/x", "http://[::1]/x",
		"http://127.0.0.1:22/", "gopher://127.0.0.1/", "file:///etc/passwd",
		"http://user:secret@www.example.org/", fmt.Sprintf("http://%s:%d/loop", name, rig.web.port),
	} {
		rig.dns.Set(t, "inner.example.org", "A 127.0.0.2")
		rig.web.says(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) })
		if a := check(); a.StatusCode != 400 {
			t.Errorf("redirected to %s: %d", to, a.StatusCode)
		}
	}
	// A redirect to another name, which may be another person's, is not followed; one to
	// the name itself is.
	redirect := func(to string) {
		rig.web.says(func(w http.ResponseWriter, r *http.Request) {
			if at := fmt.Sprintf("http://%s%s", r.Host, r.URL.Path); at != to {
				http.Redirect(w, r, to, http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, value)
		})
	}
	rig.dns.Set(t, "other.example.org", "A 127.0.0.1")
	redirect(fmt.Sprintf("http://other.example.org:%d/proof", rig.web.port))
	check().says(t, 400, "redirects to another name")
	redirect(fmt.Sprintf("http://%s:%d/proof", name, rig.web.port))
	check().says(t, 303, "")

	// A name whose address has become private when the certificate is issued.
	rig.dns.Set(t, name, "A 127.0.0.2")
	_, csr := clientCSR(t)
	dan.post(path+"/issue", "csr", string(csr)).says(t, 403, "private")

	// An answer that is too long to be a proof.
	rig.dns.Set(t, name, "A 127.0.0.1")
	rig.web.says(func(w http.ResponseWriter, r *http.Request) {
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	check().says(t, 400, "longer than")
	if n := inner.asked.Load(); n != 0 {
		t.Errorf("the server at the private address got %d requests", n)
	}
}

func TestReminders(t *testing.T) {
	rig := newPortalRig(t, func(c *portal.Config) {
		c.Remind = []time.Duration{400 * 24 * time.Hour, 500 * 24 * time.Hour}
	})
	dan := rig.enrolled(t, "dan")
	for range 2 {
		if err := rig.RemindNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	rig.mail.TakeAbout(t, "dan@example.com", "made for the device laptop")
	rig.mail.TakeAbout(t, "dan@example.com", `"laptop" expires`)
	dan.post("/certificates/"+dan.serial+"/revoke", "reason", "lost").says(t, 303, "")
	rig.mail.TakeAbout(t, "dan@example.com", "was revoked") // anything else came before
	if left := rig.mail.Mails(); len(left) != 0 {
		t.Errorf("%d messages too many: %v", len(left), left)
	}
}

func TestMailHeadersCannotBeInjected(t *testing.T) {
	box := posterntest.NewMailbox(t)
	s, err := portal.NewSMTP(box.URL+"?from=portal@example.com", "id.example.com")
	if err != nil {
		t.Fatal(err)
	}
	evil := portal.Message{
		ID: "1", To: "dan@example.com", Subject: "Hello\r\nBcc: eve@example.com\r\n\r\nEvil",
		Text: "one\r\n.\r\nQUIT\r\n..two\n",
	}
	if err := s.Send(t.Context(), evil); err != nil {
		t.Fatal(err)
	}
	m := box.Take(t, "dan@example.com")
	if m.Header.Get("Bcc") != "" || !strings.HasPrefix(m.Subject, "Hello") || m.From != "portal@example.com" ||
		!strings.Contains(m.Text, "\n.\nQUIT\n..two") {
		t.Errorf("sent:\n%s", m.Raw)
	}
	for _, to := range []string{
		"dan@example.com\r\nBcc: eve@example.com", "dan@example.com, eve@example.com",
		"<dan@example.com>", `"x" <dan@example.com>`,
	} {
		evil.To = to
		if err := s.Send(t.Context(), evil); err == nil {
			t.Errorf("a message went to %q", to)
		}
	}
}

func TestArchiveForServer(t *testing.T) {
	rig := newServerRig(t)
	rig.NamePatterns = []string{"*.internal"}
	dan := rig.enrolled(t, "dan")
	path := dan.order("names", "www.internal")
	_, csr := clientCSR(t)
	page := dan.post(path+"/issue", "csr", string(csr)).Header.Get("Location")
	for _, kind := range rig.Authority.Layouts() {
		a := dan.get(page + "/files?for=" + kind)
		if a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/x-tar" {
			t.Errorf("%s: %d %s", kind, a.StatusCode, a.Header)
		}
		names := untar(t, strings.NewReader(a.body), t.TempDir())
		if len(names) == 0 || strings.Contains(a.body, "PRIVATE KEY") && !strings.Contains(a.body, "private key") {
			t.Errorf("%s: files %v", kind, names)
		}
		z := dan.get(page + "/files?as=zip&for=" + kind)
		archive, err := zip.NewReader(strings.NewReader(z.body), int64(len(z.body)))
		if err != nil || z.Header.Get("Content-Type") != "application/zip" {
			t.Fatalf("%s as zip: %v %v", kind, err, z.Header)
		}
		var zipped []string
		for _, f := range archive.File {
			zipped = append(zipped, f.Name)
		}
		if !slices.Equal(zipped, names) {
			t.Errorf("%s: the zip has %v, the tar %v", kind, zipped, names)
		}
	}
	dan.get(page+"/files?for=nothing").says(t, 404, "")
}

// untar unpacks an archive and returns its names.
func untar(t *testing.T, r io.Reader, dir string) []string {
	t.Helper()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(filepath.Clean("/"+h.Name)))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err == nil {
			err = os.WriteFile(path, b, h.FileInfo().Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}
