package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/postern-project/postern/gate"
	"github.com/postern-project/postern/internal/posterntest"
)

// opensslCA is a CA of a test whose certificates openssl makes, also those that Go cannot.
type opensslCA struct {
	t    *testing.T
	root *holder
	dir  string
}

func newOpensslCA(t *testing.T, root *holder) *opensslCA {
	t.Helper()
	c := &opensslCA{t, root, t.TempDir()}
	der, err := x509.MarshalPKCS8PrivateKey(root.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"zoo.pem": root.pem(), "zoo.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		"client.cnf": []byte("extendedKeyUsage=clientAuth\n"),
		"ca.cnf":     []byte("basicConstraints=critical,CA:true\nkeyUsage=keyCertSign\n"),
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// try runs a program in the CA's directory; what it reads ends when it does.
func (c *opensslCA) try(input, program string, args ...string) (string, error) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), posterntest.Need(c.t, program), args...)
	cmd.Dir = c.dir
	stdin, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer stdin.Close()
	if _, err := io.WriteString(stdin, input); err != nil { // a pipe takes it before the program reads
		c.t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *opensslCA) run(program string, args ...string) string {
	c.t.Helper()
	out, err := c.try("", program, args...)
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// issue makes name.key and name.pem, and appends the issuer's certificate where it is not the root.
func (c *opensslCA) issue(name, kind, by, serial, profile string) {
	c.t.Helper()
	algorithm, option, _ := strings.Cut(kind, " ")
	args := []string{"genpkey", "-algorithm", algorithm, "-out", name + ".key"}
	if option != "" {
		args = append(args, "-pkeyopt", option)
	}
	c.run("openssl", args...)
	c.run("openssl", "req", "-new", "-key", name+".key", "-subj", "/CN="+name, "-out", name+".csr")
	c.run("openssl", "x509", "-req", "-in", name+".csr", "-CA", by+".pem", "-CAkey", by+".key",
		"-set_serial", serial, "-days", "2", "-extfile", profile+".cnf", "-out", name+".pem")
	if by == "zoo" {
		return
	}
	above, err := os.ReadFile(filepath.Join(c.dir, by+".pem"))
	if err != nil {
		c.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(c.dir, name+".pem"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(above); err != nil {
		c.t.Fatal(err)
	}
}

// unreadable serves a site that certificates of the zoo open, for tests of certificates
// that openssl makes.
func unreadable(t *testing.T) (h *rig, c *opensslCA, https int) {
	t.Helper()
	h = newRig(t)
	h.log = "file " + filepath.Join(h.dir, "caddy.log") + " {\n\t\tmode 600\n\t}"
	zoo := issue(t, nil, authority("Zoo CA"))
	h.file(t, "zoo.pem", string(zoo.pem()))
	c = newOpensslCA(t, zoo)
	https, _ = h.serve(t, "localhost:HTTPS {\n\trequire /private* {\n\t\ttrust DIR/zoo.pem\n"+
		"\t\trule `cert.subject.cn != \"\"`\n\t}\n\trespond ok\n}\n")
	return h, c, https
}

// request requests a path by a program, with a certificate, and returns what the program says.
func (c *opensslCA) request(program string, https int, version, cert, path string) string {
	c.t.Helper()
	input := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n", path, https)
	var args []string
	switch program {
	case "curl":
		input, args = "", []string{
			"-sik", "--http1.1", "--tlsv" + version, "--tls-max", version, "--max-time", "20",
			"--cert", cert + ".pem", "--key", cert + ".key", fmt.Sprintf("https://localhost:%d%s", https, path),
		}
	case "openssl":
		args = []string{
			"s_client", "-quiet", "-connect", fmt.Sprintf("localhost:%d", https), "-cert", cert + ".pem",
			"-key", cert + ".key", "-cert_chain", cert + ".pem", "-tls" + strings.ReplaceAll(version, ".", "_"),
			"-cipher", "DEFAULT@SECLEVEL=0",
		}
	}
	out, _ := c.try(input, program, args...) // what it prints says how it ended
	return out
}

// TestCertificatesThatGoReadsReluctantly shows certificates with a negative serial number,
// which Go's parser takes only with a setting: they grant what their CA grants.
func TestCertificatesThatGoReadsReluctantly(t *testing.T) {
	_, c, https := unreadable(t)
	c.issue("negative", "EC ec_paramgen_curve:P-256", "zoo", "-5", "client")
	c.run("openssl", "req", "-x509", "-new", "-key", "negative.key", "-subj", "/CN=other",
		"-set_serial", "-7", "-days", "2", "-out", "other.pem")
	c.run("cp", "negative.key", "other.key")
	for _, version := range []string{"1.2", "1.3"} {
		for _, want := range []struct{ cert, path, status string }{
			{"negative", "/", "200"},
			{"negative", "/private", "200"},
			{"other", "/", "200"},
			{"other", "/private", "403"},
		} {
			got := c.request("curl", https, version, want.cert, want.path)
			if !strings.HasPrefix(got, "HTTP/1.1 "+want.status) {
				t.Errorf("%+v over TLS %s: %q", want, version, got)
			}
		}
	}
}

// TestCertificatesThatGoCannotRead shows certificates that crypto/tls fails on. The handshake
// fails once; then the client is as one without a certificate: public pages are served, the refusal
// says why, and the log says it once.
func TestCertificatesThatGoCannotRead(t *testing.T) {
	h, c, https := unreadable(t)
	const p256, p384, k256 = "EC ec_paramgen_curve:P-256", "EC ec_paramgen_curve:brainpoolP384r1",
		"EC ec_paramgen_curve:secp256k1"
	c.issue("ca", p384, "zoo", "11", "ca")
	for i, k := range []struct{ name, key, by, program, version, log string }{
		{"brainpool", p384, "zoo", "curl", "1.2", "unsupported elliptic curve"},
		{"koblitz", k256, "zoo", "curl", "1.2", "unsupported elliptic curve"},
		{"small", "RSA rsa_keygen_bits:512", "zoo", "openssl", "1.2", "512-bit keys are insecure"},
		{"below", p256, "ca", "curl", "1.2", "unsupported elliptic curve"},
		{"below", p256, "ca", "curl", "1.3", "unsupported elliptic curve"},
		{"below", p256, "ca", "openssl", "1.3", "unsupported elliptic curve"},
	} {
		forgetUnreadable() // as if each came from elsewhere
		c.issue(k.name, k.key, k.by, fmt.Sprint(20+i), "client")
		if got := c.request(k.program, https, k.version, k.name, "/"); strings.Contains(got, "HTTP/1.1") {
			t.Errorf("%+v passes the first handshake: %s", k, got)
		}
		await(t, func() bool {
			return strings.Contains(c.request(k.program, https, k.version, k.name, "/"), "HTTP/1.1 200")
		})
		got := c.request(k.program, https, k.version, k.name, "/private")
		if !strings.Contains(got, "HTTP/1.1 403") || !strings.Contains(got, gate.Unreadable.Words()) {
			t.Errorf("%+v on the guarded page: %s", k, got)
		}
		if got := h.logged(t, "cannot be read"); len(got) != i+1 || !strings.Contains(got[i], k.log) {
			t.Errorf("%+v: the log says %q", k, got)
		}
	}
	status, body := get(t, h.client1(t, issue(t, c.root, person("good"))),
		fmt.Sprintf("https://localhost:%d/private", https))
	if status != 200 {
		t.Errorf("another client at that address: %d %s", status, body)
	}
	forgetUnreadable()
	for path, want := range map[string]string{"/": "HTTP/1.1 200", "/private": "HTTP/1.1 403"} {
		got := c.request("curl", https, "1.3", "brainpool", path)
		if !strings.HasPrefix(got, want) || strings.Contains(got, gate.Unreadable.Words()) {
			t.Errorf("a key that TLS 1.3 does not offer to take, %s: %s", path, got)
		}
	}
}

// TestAnUnreadableCertificateLocksNobodyOut has one client fail with a certificate that Go cannot
// read. Another, at the same address and with the same handshake, is refused once on a guarded
// page; the connection is closed, and on the next one its certificate is asked for.
func TestAnUnreadableCertificateLocksNobodyOut(t *testing.T) {
	_, c, https := unreadable(t)
	const p256 = "EC ec_paramgen_curve:P-256"
	c.issue("ca", "EC ec_paramgen_curve:brainpoolP384r1", "zoo", "11", "ca")
	c.issue("below", p256, "ca", "12", "client")
	c.issue("valid", p256, "zoo", "13", "client")
	for _, version := range []string{"--http1.1", "--http2"} {
		curl := func(cert string, paths ...string) string {
			args := []string{"-sik", version, "--max-time", "20", "--cert", cert + ".pem", "--key", cert + ".key"}
			for _, path := range paths {
				args = append(args, fmt.Sprintf("https://localhost:%d%s", https, path))
			}
			out, _ := c.try("", "curl", args...) // what it prints says how it ended
			return out
		}
		forgetUnreadable()
		curl("below", "/")
		await(t, func() bool { return strings.Contains(curl("below", "/"), " 200") })
		got := curl("valid", "/", "/private", "/private")
		first, then, _ := strings.Cut(got, gate.Unreadable.Words())
		if !strings.Contains(first, " 200") || !strings.Contains(first, " 403") || !strings.Contains(then, " 200") {
			t.Errorf("%s: %s", version, got)
		}
	}
}

// logged returns the lines of Caddy's log that contain a text.
func (h *rig) logged(t *testing.T, text string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(h.dir, "caddy.log"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(data), "\n"), func(l string) bool {
		return !strings.Contains(l, text)
	})
}

// await waits until something is so.
func await(t *testing.T, so func() bool) {
	t.Helper()
	for range 200 {
		if so() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("waited in vain")
}

// forgetUnreadable forgets which clients' certificates could not be read.
func forgetUnreadable() {
	u := &current().unreadable
	u.mu.Lock()
	defer u.mu.Unlock()
	u.until, u.logged, u.lines = nil, nil, 0
}

// TestABrowserWithACertificateThatGoCannotRead opens pages in Chromium, which chooses such a
// certificate only where its issuer's key is the one that Go does not know.
func TestABrowserWithACertificateThatGoCannotRead(t *testing.T) {
	h, c, https := unreadable(t)
	const p256, brainpool = "EC ec_paramgen_curve:P-256", "EC ec_paramgen_curve:brainpoolP256r1"
	c.issue("ca", brainpool, "zoo", "11", "ca")
	c.issue("below", p256, "ca", "12", "client")
	c.issue("leaf", brainpool, "zoo", "13", "client")
	base := fmt.Sprintf("https://localhost:%d", https)
	open := func(name string) context.Context {
		c.run("openssl", "pkcs12", "-export", "-inkey", name+".key", "-in", name+".pem", "-certfile", "zoo.pem",
			"-out", name+".p12", "-passout", "pass:password")
		b := posterntest.NewBrowser(t)
		b.Trust(h.file(t, "root.pem", string(h.root.pem())))
		b.Import(filepath.Join(c.dir, name+".p12"), "password")
		return b.Open(true)
	}
	ctx := open("leaf")
	if got := visit(t, ctx, base+"/", "leaf-public"); got != "ok" {
		t.Errorf("public page, brainpool key: %q", got)
	}
	if got := visit(t, ctx, base+"/private", "leaf-guarded"); !strings.Contains(got, gate.NoneShown.Words()) {
		t.Errorf("guarded page, brainpool key: %q", got)
	}
	ctx = open("below")
	if _, err := chromedp.Run(ctx, chromedp.Navigate(base+"/")); err == nil {
		t.Error("the first handshake with a brainpool issuer succeeds: the documentation can say so")
	}
	await(t, func() bool { return len(h.logged(t, "cannot be read")) == 1 })
	if got := visit(t, ctx, base+"/", "below-public"); got != "ok" {
		t.Errorf("public page, brainpool issuer: %q", got)
	}
	if got := visit(t, ctx, base+"/private", "below-guarded"); !strings.Contains(got, gate.Unreadable.Words()) {
		t.Errorf("guarded page, brainpool issuer: %q", got)
	}
}

// TestUnreadableClientsAreFewAndForgotten tells clients apart by address, site and handshake,
// whatever a browser mixes in at random, and remembers a bounded number, for a while.
func TestUnreadableClientsAreFewAndForgotten(t *testing.T) {
	hello := func(address, site string, suites ...uint16) *tls.ClientHelloInfo {
		return &tls.ClientHelloInfo{Conn: fromAddress{address: address}, ServerName: site, CipherSuites: suites}
	}
	var u unreadableClients
	now := time.Now()
	if !u.add(hello("192.0.2.1", "a", 0x0a0a, 1, 2), now) || u.add(hello("192.0.2.1", "a", 2, 1), now) {
		t.Error("a client is not logged once")
	}
	another := hello("192.0.2.1", "b", 7)
	if _, known := u.has(another, now); u.add(another, now) || known {
		t.Error("another handshake of an address is logged, too, or known")
	}
	key, known := u.has(another, now)
	if u.forget(key); !known {
		t.Error("another handshake of an address is not remembered")
	}
	u.add(hello("2001:db8::1", "a", 1), now)
	for _, c := range []struct {
		hello *tls.ClientHelloInfo
		want  bool
	}{
		{hello("192.0.2.1", "A", 1, 2, 0xfafa), true},
		{hello("192.0.2.2", "a", 1, 2), false},
		{hello("192.0.2.1", "b", 1, 2), false},
		{hello("192.0.2.1", "a", 1, 2, 3), false},
		{another, false},
		{hello("2001:db8::2:3", "a", 1), true},
		{hello("2001:db8:0:1::1", "a", 1), false},
	} {
		if _, got := u.has(c.hello, now.Add(unreadableFor-1)); got != c.want {
			t.Errorf("%+v: %v", c.hello, got)
		}
		if _, got := u.has(c.hello, now.Add(unreadableFor)); got {
			t.Errorf("%+v is remembered too long", c.hello)
		}
	}
	logged := 0
	for i := range 2 * maxUnreadable {
		at := now.Add(time.Duration(i/maxUnreadable) * time.Minute)
		if u.add(hello(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "a"), at) {
			logged++
		}
	}
	if want := 2*perMinute - 2; logged != want { // two addresses were logged in the first minute before
		t.Errorf("%d addresses are logged in two minutes, not %d", logged, want)
	}
	if len(u.until) > maxUnreadable || len(u.logged) > maxUnreadable {
		t.Errorf("%d clients and %d addresses are remembered", len(u.until), len(u.logged))
	}
}

// fromAddress is a connection of which only the client's address is known.
type fromAddress struct {
	net.Conn
	address string
}

func (c fromAddress) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(c.address)} }
