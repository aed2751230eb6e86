package server_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/apache"
	"github.com/postern-project/postern/internal/posterntest"
)

// besideFile is a configuration that Apache and Postern run beside each other.
// Its comments say what is asked of both:
//
//	# ask: [@2] [METHOD] PATH [HEADER: VALUE]   @2 asks from the address 127.0.0.2
//	# htaccess: DIRECTORY LINE                  an access file, one line each
//	# differs: WHO METHOD PATH SEVERITY         where Postern's answer is another, and how the note says so
type besideFile struct {
	name, text string
	asks       []question
	access     map[string]string
	differs    map[string]apache.Severity
	notes      []apache.Note
}

// question is one request.
type question struct{ from, method, path, header string }

func (q question) String() string {
	return strings.TrimSpace(q.from + " " + q.method + " " + q.path + " " + q.header)
}

func readBeside(t *testing.T, file string) *besideFile {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f := &besideFile{
		name: strings.TrimSuffix(filepath.Base(file), ".conf"), text: string(text),
		access: make(map[string]string), differs: make(map[string]apache.Severity),
	}
	for line := range strings.Lines(f.text) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "# ask: "); ok {
			f.asks = append(f.asks, readQuestion(s))
		}
		if s, ok := strings.CutPrefix(line, "# htaccess: "); ok {
			dir, rest, _ := strings.Cut(s, " ")
			f.access[dir] += rest + "\n"
		}
		if s, ok := strings.CutPrefix(line, "# differs: "); ok {
			i := strings.LastIndexByte(s, ' ')
			f.differs[s[:i]] = apache.Severity(s[i+1:])
		}
	}
	if len(f.asks) == 0 {
		t.Fatalf("%s asks for nothing", file)
	}
	return f
}

func readQuestion(s string) question {
	q := question{method: "GET"}
	if rest, ok := strings.CutPrefix(s, "@2 "); ok {
		q.from, s = "@2", rest
	}
	if method, rest, ok := strings.Cut(s, " "); ok && !strings.HasPrefix(s, "/") {
		q.method, s = method, rest
	}
	q.path, q.header, _ = strings.Cut(s, " ")
	return q
}

// visitor is a client: its certificate, and whether that verifies.
type visitor struct {
	name  string
	cert  *tls.Certificate
	valid bool
}

var oidExample = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

// visitors are seven certificates, and none.
func (s *startcom) visitors() []visitor {
	t := s.t
	ca := s.issue(nil, subject(t, attribute{oidO, "Example"}, attribute{oidCN, "Client CA"}), asCA)
	other := s.issue(nil, subject(t, attribute{oidO, "Example"}, attribute{oidCN, "Client CA"}), asCA)
	s.root = ca
	dan := subject(t, attribute{oidO, "Example"}, attribute{oidOU, "staff"}, attribute{oidCN, "dan"},
		attribute{oidE, "dan@example.com"})
	extended := func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{
			{Id: oidExample, Value: []byte("\x0c\x05admin")}, {
				Id:    asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13},
				Value: []byte("\x16\x04card"),
			},
		}
	}
	usages := func(list ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = list }
	}
	name := func(o, ou, cn string) []byte {
		return subject(t, attribute{oidO, o}, attribute{oidOU, ou}, attribute{oidCN, cn})
	}
	two := subject(t, attribute{oidO, "Example"}, attribute{oidOU, "staff"}, attribute{oidOU, "guests"},
		attribute{oidCN, "two"})
	return []visitor{
		{"none", nil, false},
		{"dan", s.issue(ca, dan, extended).tls(), true},
		{"eve", s.issue(ca, name("Example", "guests", "eve"),
			usages(x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageEmailProtection)).tls(), true},
		{"umlaut", s.issue(ca, name(`Söhne, "Co"`, `back\slash`, "Jörg"), nil).tls(), true},
		{"two-units", s.issue(ca, two, nil).tls(), true},
		{"mail-only", s.issue(ca, dan, usages(x509.ExtKeyUsageEmailProtection)).tls(), false},
		{"expired", s.issue(ca, dan, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}).tls(), false},
		{"another-ca", s.issue(other, dan, nil).tls(), false},
	}
}

// newEcho starts the application behind the proxies, which prints the headers that it gets.
func newEcho(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.Method, r.URL.Path)
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			if strings.HasPrefix(name, "X-Told-") {
				fmt.Fprintln(w, name, r.Header[name])
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// prepare writes what the configuration names, and the configuration itself with
// the test's directories and ports in it.
func (f *besideFile) prepare(t *testing.T, dir string, port int, echo string) string {
	t.Helper()
	www := filepath.Join(dir, f.name)
	for _, q := range f.asks {
		path, _, _ := strings.Cut(q.path, "?")
		if !strings.Contains(filepath.Base(path), ".") && !strings.HasSuffix(path, "/page") && !strings.HasSuffix(path,
			"/file") {
			path += "/index.html"
		}
		writeOpen(t, filepath.Join(www, path), "here is "+q.path)
	}
	for where, text := range f.access {
		writeOpen(t, filepath.Join(www, where, ".htaccess"), text)
	}
	text := strings.NewReplacer("*:443", "*:"+strconv.Itoa(port), "/srv/www", www, "/etc/apache2/", dir+"/",
		"127.0.0.1:9000", echo).Replace(f.text)
	file := filepath.Join(dir, f.name+".conf")
	writeOpen(t, file, text)
	return file
}

func writeOpen(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestImportBesideApache runs configurations of the kinds that administrators
// share in Apache and, carried over, in Postern, and asks both the same: their
// answers are the same, or a note says why not.
func TestImportBesideApache(t *testing.T) {
	confs, err := filepath.Glob("../apache/testdata/beside/*.conf")
	if err != nil || len(confs) < 30 {
		t.Fatal(len(confs), "configurations", err)
	}
	s := newStartcom(t)
	visitors := s.visitors()
	dir, echo := posterntest.OpenDir(t), newEcho(t)
	s.serverCert.write(t, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	s.root.write(t, filepath.Join(dir, "clients.pem"), "")
	writeOpen(t, filepath.Join(dir, "users"), "")
	writeOpen(t, filepath.Join(dir, "snippets", "tls.conf"), fmt.Sprintf(
		"SSLEngine on\nSSLCertificateFile %[1]s/server.pem\nSSLCertificateKeyFile %[1]s/server.key\n"+
			"SSLCACertificateFile %[1]s/clients.pem\n", dir))
	old, fresh := posterntest.FreePort(t), posterntest.FreePort(t)
	var files []*besideFile
	config, caddyfile := modulesBeside(), fmt.Sprintf("{\n\thttps_port %d\n\tauto_https disable_redirects\n}\n", fresh)
	for _, conf := range confs {
		f := readBeside(t, conf)
		file := f.prepare(t, dir, old, echo)
		config += "Include " + file + "\n"
		text, err := apache.Convert(apache.Config{}, file)
		if err != nil {
			t.Fatal(err)
		}
		f.notes = text.Notes
		caddyfile += strings.ReplaceAll(text.Caddyfile, ":"+strconv.Itoa(old), ":"+strconv.Itoa(fresh)) + "\n"
		files = append(files, f)
	}
	writeOpen(t, filepath.Join(dir, "Caddyfile"), caddyfile)
	posterntest.Apache(t, old, config)
	posterntest.Serve(t, fresh, posterntest.Program(t), "--state", filepath.Join(t.TempDir(), "state"), "run",
		"--config", filepath.Join(dir, "Caddyfile"))
	var wg sync.WaitGroup
	limit := make(chan struct{}, 6)
	for _, f := range files {
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			f.compare(t, visitors, old, fresh)
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Log(caddyfile)
	}
}

func modulesBeside() (config string) {
	for _, m := range []string{
		"proxy", "proxy_http", "setenvif", "access_compat", "allowmethods", "auth_basic",
		"authn_file", "authz_user", "macro",
	} {
		config += fmt.Sprintf("LoadModule %[1]s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", m)
	}
	return config
}

// compare asks both servers everything. Who shows a certificate that does not verify
// is to Postern one without, where Apache ends the handshake.
func (f *besideFile) compare(t *testing.T, visitors []visitor, old, fresh int) {
	differ := make(map[string]bool)
	for _, q := range f.asks {
		var none reply
		for _, v := range visitors {
			was := f.ask(t, old, v.cert, q, tls.VersionTLS12)
			if v.cert == nil {
				none = was
			}
			if v.cert != nil && !v.valid {
				if passes(was) && !passes(none) {
					t.Errorf("%s: %s as %s: Apache lets pass by a certificate that does not verify", f.name, q, v.name)
				}
				was = none
			}
			is := f.ask(t, fresh, v.cert, q, 0)
			if passes(was) == passes(is) && (q.method != "GET" || was.status != 200 || is == was) {
				continue
			}
			key := v.name + " " + q.String()
			if v.cert != nil && !v.valid {
				key = "none " + q.String()
			}
			differ[key] = true
			severity, known := f.differs[key]
			if !known || passes(is) && severity != apache.Widened {
				t.Errorf("%s: %s as %s: Apache answers %d, Postern %d\n%s\n%s", f.name, q, v.name, was.status,
					is.status, was.body, is.body)
			} else if !slices.ContainsFunc(f.notes, func(n apache.Note) bool { return n.Severity == severity }) {
				t.Errorf("%s: %s as %s: no note is marked %s: %v", f.name, q, v.name, severity, f.notes)
			}
		}
	}
	for key := range f.differs {
		if !differ[key] {
			t.Errorf("%s: %s: the answers do not differ", f.name, key)
		}
	}
}

// passes reports whether an answer is not a refusal.
func passes(r reply) bool {
	return r.status != 0 && r.status != http.StatusForbidden && r.status != http.StatusUnauthorized
}

func (f *besideFile) ask(t *testing.T, port int, cert *tls.Certificate, q question, most uint16) reply {
	dialer := net.Dialer{Timeout: patience}
	if q.from == "@2" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	}
	raw, err := dialer.DialContext(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Error(err)
		return reply{}
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	host := f.name + ".example.com"
	config := &tls.Config{
		ServerName: host, InsecureSkipVerify: true, MaxVersion: most,
		Renegotiation: tls.RenegotiateFreelyAsClient,
	}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	conn := tls.Client(raw, config)
	header := ""
	if q.header != "" {
		header = q.header + "\r\n"
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", q.method, q.path, host, header)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: q.method})
	if err != nil {
		return reply{}
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, string(body), resp.Header.Get("Location")}
}
