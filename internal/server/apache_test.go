package server_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/apache"
	"github.com/postern-project/postern/internal/posterntest"
)

// TestImportedConfigurationsLoad holds what the importer writes against the
// front door's own reading of a Caddyfile, rules included.
func TestImportedConfigurationsLoad(t *testing.T) {
	confs, err := filepath.Glob("../apache/testdata/*/site.conf")
	if err != nil || len(confs) == 0 {
		t.Fatal("no configurations", err)
	}
	for _, conf := range confs {
		r, err := apache.Convert(apache.Config{FS: os.DirFS(filepath.Dir(conf))}, "/site.conf")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := front.Adapt([]byte(r.Caddyfile), "Caddyfile"); err != nil {
			t.Errorf("%s: %v\n%s", conf, err, r.Caddyfile)
		}
	}
}

// startcom is a PKI like that of the CA whose certificates the configuration
// asks for.
type startcom struct {
	t          *testing.T
	root, sub  *pair
	other      *pair // another root that says it is the same intermediate
	serverCert *pair
}

// pair is a key with its certificate.
type pair struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	der  [][]byte // with what is sent behind it
}

type attribute struct {
	oid   asn1.ObjectIdentifier
	value string
}

var (
	oidC  = asn1.ObjectIdentifier{2, 5, 4, 6}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidOU = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidE  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

func subject(t *testing.T, list ...attribute) []byte {
	t.Helper()
	var seq pkix.RDNSequence
	for _, a := range list {
		seq = append(seq, pkix.RelativeDistinguishedNameSET{{Type: a.oid, Value: a.value}})
	}
	der, err := asn1.Marshal(seq)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (s *startcom) issue(by *pair, raw []byte, change func(*x509.Certificate)) *pair {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		s.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, RawSubject: raw, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if change != nil {
		change(tmpl)
	}
	p := &pair{key: key}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		s.t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		s.t.Fatal(err)
	}
	p.der = [][]byte{der}
	if by != nil {
		p.der = append(p.der, by.der...)
	}
	return p
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
}

func newStartcom(t *testing.T) *startcom {
	t.Helper()
	s := &startcom{t: t}
	top := subject(t, attribute{oidC, "IL"}, attribute{oidO, "StartCom Ltd."},
		attribute{oidOU, "Secure Digital Certificate Signing"}, attribute{oidCN, "StartCom Certification Authority"})
	class1 := subject(t, attribute{oidC, "IL"}, attribute{oidO, "StartCom Ltd."},
		attribute{oidOU, "Secure Digital Certificate Signing"},
		attribute{oidCN, "StartCom Class 1 Primary Intermediate Client CA"})
	s.root = s.issue(nil, top, asCA)
	s.sub = s.issue(s.root, class1, asCA)
	s.other = s.issue(nil, class1, asCA)
	s.serverCert = s.issue(s.root, subject(t, attribute{oidCN, "www.example.com"}), func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"www.example.com"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	return s
}

func (p *pair) tls() *tls.Certificate { return &tls.Certificate{Certificate: p.der, PrivateKey: p.key} }

func (p *pair) write(t *testing.T, cert, key string) {
	t.Helper()
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}),
		0o644); err != nil {
		t.Fatal(err)
	}
	if key == "" {
		return
	}
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// identities are the certificates that a client may try with, and whether they
// are the right one.
func (s *startcom) identities() map[string]struct {
	cert  *tls.Certificate
	right bool
} {
	t := s.t
	dan := []attribute{{oidCN, "dan@example.com"}, {oidE, "dan@example.com"}}
	mallory := []attribute{{oidCN, "mallory@example.com"}, {oidE, "mallory@example.com"}}
	type id = struct {
		cert  *tls.Certificate
		right bool
	}
	return map[string]id{
		"none":                   {nil, false},
		"dan":                    {s.issue(s.sub, subject(t, dan...), nil).tls(), true},
		"mallory":                {s.issue(s.sub, subject(t, mallory...), nil).tls(), false},
		"dan by another root":    {s.issue(s.other, subject(t, dan...), nil).tls(), false},
		"dan self-signed":        {s.issue(nil, subject(t, dan...), nil).tls(), false},
		"dan by the root itself": {s.issue(s.root, subject(t, dan...), nil).tls(), false},
		"dan expired": {s.issue(s.sub, subject(t, dan...), func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}).tls(), false},
		"dan not yet valid": {s.issue(s.sub, subject(t, dan...), func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		}).tls(), false},
		"a server called dan": {s.issue(s.sub, subject(t, dan...), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}).tls(), false},
		"dan, then mallory":  {s.issue(s.sub, subject(t, append(dan, mallory...)...), nil).tls(), false},
		"mallory, then dan":  {s.issue(s.sub, subject(t, append(mallory, dan...)...), nil).tls(), false},
		"dan without e-mail": {s.issue(s.sub, subject(t, dan[0]), nil).tls(), false},
		"dan's name inside another's": {s.issue(s.sub, subject(t,
			attribute{oidCN, "mallory/CN=dan@example.com,emailAddress=dan@example.com"}), nil).tls(), false},
	}
}

// endpoint is a server that one of the two configurations runs.
type endpoint struct{ https, http int }

const (
	secretText = "the secret of wp-admin"
	loginText  = "the secret of wp-login"
	publicText = "the public page"
)

// TestTheWriteUpsConfiguration runs one configuration in Apache and, carried
// over, in Postern, and asks both the same.
func TestTheWriteUpsConfiguration(t *testing.T) {
	s := newStartcom(t)
	dir := posterntest.OpenDir(t)
	for name, text := range map[string]string{
		"index.html": publicText, "wp-admin/index.html": secretText,
		"wp-admin/a b.html": secretText, "wp-login.php": "source",
	} {
		file := filepath.Join(dir, "www", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.serverCert.write(t, filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	s.root.write(t, filepath.Join(dir, "start.pem"), "")
	php := servePHP(t)
	old := runApache(t, dir, writeUp(t, dir, php))
	fresh := runImported(t, dir, writeUp(t, dir, php), php)

	paths := map[string]string{ // and what stands there
		"/": publicText, "/index.html": publicText, "/wp-admin/": secretText, "/wp-admin/index.html": secretText,
		"/wp-login.php":     loginText,
		"/wp-login.php?a=b": loginText, "/wp-admin/a%20b.html": secretText, "/wp-login.php/info": loginText,
		"//wp-admin/":     secretText,
		"/x/../wp-admin/": secretText, "/%77p-admin/index.html": secretText, "/./wp-login.php": loginText,
	}
	for name, id := range s.identities() {
		for path, text := range paths {
			guarded := text != publicText
			was, is := ask(t, old.https, id.cert, path, tls.VersionTLS12), ask(t, fresh.https, id.cert, path, 0)
			switch {
			case guarded && !id.right && (strings.Contains(is.body, text) || is.status == http.StatusOK):
				t.Errorf("%s at %s: Postern shows %q", name, path, is.body)
			case !guarded && is.body != text:
				t.Errorf("%s at %s: Postern answers %d %q to a public page", name, path, is.status, is.body)
			case guarded && id.right && strings.Contains(was.body, text) && !strings.Contains(is.body, text):
				t.Errorf("%s at %s: Apache shows the page, Postern answers %d", name, path, is.status)
			case guarded && id.right && !strings.ContainsAny(path, "%.?/x") && !strings.Contains(is.body, text):
				t.Errorf("%s at %s: Postern answers %d", name, path, is.status)
			case guarded && !id.right && strings.Contains(was.body, text):
				t.Logf("%s at %s: Apache shows the page, Postern does not", name, path)
			}
		}
	}
	for path := range paths {
		was, is := ask(t, old.http, nil, path, 0), ask(t, fresh.http, nil, path, 0)
		guarded := paths[path] != publicText
		switch {
		case guarded && (is.status != http.StatusMovedPermanently ||
			!strings.HasPrefix(is.location, "https://www.example.com")):
			t.Errorf("%s over plain HTTP: %d to %q", path, is.status, is.location)
		case !guarded && (is.status != was.status || is.body != was.body):
			t.Errorf("%s over plain HTTP: %d, Apache %d", path, is.status, was.status)
		case guarded && was.status == http.StatusMovedPermanently && path == "/wp-admin/" &&
			is.location != was.location+portSuffix(fresh.https) && !sameTarget(is.location, was.location):
			t.Errorf("%s over plain HTTP: to %s, Apache to %s", path, is.location, was.location)
		}
	}
}

func portSuffix(port int) string { return ":" + strconv.Itoa(port) }

// sameTarget compares two addresses but for the port of the test.
func sameTarget(a, b string) bool {
	strip := func(s string) string {
		rest := strings.TrimPrefix(s, "https://www.example.com")
		if i := strings.IndexByte(rest, '/'); i >= 0 {
			rest = rest[i:]
		}
		return rest
	}
	return strip(a) == strip(b)
}

// servePHP stands in for PHP: a FastCGI server whose scripts say one thing.
func servePHP(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go fcgi.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, loginText) }))
	return l.Addr().String()
}

// writeUp returns the configuration with the test's files in it.
func writeUp(t *testing.T, dir, php string) string {
	t.Helper()
	text, err := os.ReadFile("../apache/testdata/writeup/site.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := strings.NewReplacer(
		"/var/www/example.com", dir+"/www", "/var/log/apache2/example.com/", dir+"/",
		"/etc/ssl/certs/ssl-cert-example.com.pem", dir+"/server.pem", "/etc/ssl/private/ssl-cert-example.com.key",
		dir+"/server.key",
		"/etc/ssl/certs/ssl-ca-chain-start.com-class1-server.pem", dir+"/start.pem",
		"/etc/ssl/certs/ssl-ca-start.com.pem", dir+"/start.pem",
	).Replace(string(text))
	handler := "DirectoryIndex index.html\n<FilesMatch \"\\.php$\">\nSetHandler \"proxy:fcgi://" + php +
		"/\"\n</FilesMatch>\n"
	return strings.ReplaceAll(conf, "<VirtualHost *:443>\n", "<VirtualHost *:443>\n"+handler)
}

func runApache(t *testing.T, dir, conf string) endpoint {
	t.Helper()
	d := endpoint{posterntest.FreePort(t), posterntest.FreePort(t)}
	modules := ""
	for _, m := range []string{
		"proxy", "proxy_fcgi", "log_config", "setenvif", "access_compat", "allowmethods",
		"auth_basic", "authn_file", "authz_user",
	} {
		modules += fmt.Sprintf("<IfModule !mod_%[1]s.c>\nLoadModule %[1]s_module "+
			"/usr/lib/apache2/modules/mod_%[1]s.so\n</IfModule>\n", m)
	}
	formats := "LogFormat \"%h %l %u %t \\\"%r\\\" %>s %b\" combined\n"
	access := "<Directory " + dir + "/www>\nRequire all granted\n</Directory>\n"
	conf = strings.NewReplacer("*:443>", "*:"+strconv.Itoa(d.https)+">", "*:80>",
		"*:"+strconv.Itoa(d.http)+">").Replace(conf)
	posterntest.Apache(t, d.https, modules+formats+access+"Listen 127.0.0.1:"+strconv.Itoa(d.http)+"\n"+conf)
	return d
}

// runImported carries the configuration over and serves what comes out.
func runImported(t *testing.T, dir, conf, php string) endpoint {
	t.Helper()
	d := endpoint{posterntest.FreePort(t), posterntest.FreePort(t)}
	file := filepath.Join(dir, "site.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	imported, err := apache.Convert(apache.Config{Defines: apache.DebianDefines()}, file)
	if err != nil {
		t.Fatal(err)
	}
	if err := imported.Write(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	caddyfile := filepath.Join(dir, "new", "Caddyfile")
	text, err := os.ReadFile(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), php) {
		t.Errorf("PHP's address is lost:\n%s", text)
	}
	head := fmt.Sprintf("{\n\thttps_port %d\n\thttp_port %d\n\tauto_https disable_redirects\n}\n", d.https, d.http)
	if err := os.WriteFile(caddyfile, append([]byte(head), text...), 0o644); err != nil {
		t.Fatal(err)
	}
	posterntest.Serve(t, d.https, posterntest.Program(t), "--state", filepath.Join(dir, "state"), "run", "--config",
		caddyfile)
	return d
}

type reply struct {
	status         int
	body, location string
}

// ask sends one request, the path as it is written, and reads the answer. What
// is cut off is no status.
func ask(t *testing.T, port int, cert *tls.Certificate, path string, most uint16) reply {
	t.Helper()
	v := visit{port: port, cert: cert, most: most}
	defer v.close()
	return v.ask(t, path)
}

// visit is a client that keeps its connection, as long as the server does.
type visit struct {
	port int
	cert *tls.Certificate
	most uint16 // TLS version; 0: the newest

	conn   net.Conn // nil: there is none
	answer *bufio.Reader
}

// ask sends a request as [ask] does. What a kept connection cuts off it sends again on a
// new one.
func (v *visit) ask(t *testing.T, path string) reply {
	t.Helper()
	kept := v.conn != nil
	if !kept {
		v.dial(t)
	}
	v.conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(v.conn, "GET %s HTTP/1.1\r\nHost: www.example.com\r\n\r\n", path)
	resp, err := http.ReadResponse(v.answer, nil)
	if err != nil {
		v.close()
		if kept {
			return v.ask(t, path)
		}
		return reply{}
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.Close {
		v.close()
	}
	return reply{resp.StatusCode, string(body), resp.Header.Get("Location")}
}

// dial connects by TLS, if the server on the port speaks it.
func (v *visit) dial(t *testing.T) {
	t.Helper()
	config := &tls.Config{
		ServerName: "www.example.com", InsecureSkipVerify: true, MaxVersion: v.most,
		Renegotiation: tls.RenegotiateFreelyAsClient,
	}
	if v.cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return v.cert, nil
		}
	}
	conn := tls.Client(v.dialTCP(t), config)
	v.conn = conn
	if v.cert == nil && v.most == 0 && conn.Handshake() != nil {
		conn.Close()
		v.conn = v.dialTCP(t)
	}
	v.answer = bufio.NewReader(v.conn)
}

func (v *visit) dialTCP(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(v.port))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (v *visit) close() {
	if v.conn != nil {
		v.conn.Close()
		v.conn = nil
	}
}
