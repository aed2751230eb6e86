package ca_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// exported writes a certificate's layout into a directory and returns it.
func exported(t *testing.T, out *ca.Issued, l ca.Layout) (dir string, files []ca.File) {
	t.Helper()
	dir = t.TempDir()
	files, err := ca.Bundle{Issued: out, Key: out.Key, Dir: dir, Password: "secret"}.Files(l)
	must(t, err)
	must(t, ca.WriteFiles(dir, files, false))
	return dir, files
}

// snippet returns the exported configuration, listening on the port.
func snippet(files []ca.File, port int) string {
	text := string(files[len(files)-1].Data)
	return strings.NewReplacer("*:443", fmt.Sprintf("*:%d", port), "listen 443",
		fmt.Sprintf("listen 127.0.0.1:%d", port), "bind :443", fmt.Sprintf("bind 127.0.0.1:%d", port)).Replace(text)
}

// visit fetches a page as a client that trusts the root alone and shows a
// certificate if it has one. The status is 0 if the connection fails.
func visit(t *testing.T, a *ca.Authority, url string, client *ca.Issued) (status int, body string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.Root())
	cfg := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	if client != nil {
		cfg.Certificates = []tls.Certificate{{
			Certificate: [][]byte{client.Leaf.Raw, client.Chain[0].Raw},
			PrivateKey:  client.Key,
		}}
	}
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		t.Log(err)
		return 0, ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(data)
}

func TestApacheLayout(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{Name: "Example Org"})
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost", "www.example.com"}})
	must(t, err)
	dir, files := exported(t, out, ca.LayoutApache)
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if got, want := strings.Join(names, " "),
		"ssl-cert-localhost.pem ssl-cert-localhost.key ssl-ca-chain-example-org-server.pem ssl-ca-example-org.pem "+
			"localhost.conf"; got != want {
		t.Errorf("files %q, want %q", got, want)
	}
	info, err := os.Stat(filepath.Join(dir, "ssl-cert-localhost.key"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file has mode %o", info.Mode().Perm())
	}
	port := posterntest.FreePort(t)
	posterntest.Apache(t, port, snippet(files, port))
	if status, body := visit(t, a, fmt.Sprintf("https://localhost:%d/", port), nil); status != 200 ||
		body != "public" {
		t.Errorf("Apache answers %d %q", status, body)
	}
}

// TestApacheRefusesTheRevoked holds Apache's two ways of asking about revocation
// against the lists and answers served here, and the guard in the exported
// snippet against persons.
func TestApacheRefusesTheRevoked(t *testing.T) {
	var handler http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
	}))
	defer srv.Close()
	a, db := newAuthority(t, ca.Config{URL: srv.URL})
	handler = a.Handler(nil)
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "eve", Email: "eve@example.com"}))
	issue := func(person string) *ca.Issued {
		out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: person})
		must(t, err)
		return out
	}
	good, bad, eve := issue("dan"), issue("dan"), issue("eve")
	must(t, a.Revoke(t.Context(), bad.Serial, postern.KeyCompromise, postern.Actor{}))
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}})
	must(t, err)
	crl, err := a.CRL(t.Context(), "client")
	must(t, err)
	list := write(t, "client.crl", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER}))
	for name, check := range map[string]string{
		"CRL":  "SSLCARevocationCheck leaf\nSSLCARevocationFile " + list,
		"OCSP": "SSLOCSPEnable leaf",
	} {
		t.Run(name, func(t *testing.T) {
			_, files := exported(t, server, ca.LayoutApache)
			port := posterntest.FreePort(t)
			// The guard that the snippet shows, switched on.
			config := snippet(files, port)
			for _, line := range []string{
				"SSLVerifyClient", "SSLVerifyDepth", "<Location /wp-admin>",
				"\tRequire expr", "</Location>",
			} {
				config = strings.Replace(config, "#"+line, line, 1)
			}
			config = strings.Replace(config, "/wp-admin", "/private", 1)
			config = strings.Replace(config, "</VirtualHost>", check+"\n</VirtualHost>", 1)
			posterntest.Apache(t, port, config)
			url := fmt.Sprintf("https://localhost:%d/private/", port)
			for _, c := range []struct {
				who    string
				client *ca.Issued
				passes bool
			}{
				{"dan", good, true},
				{"no certificate", nil, false},
				{"another person", eve, false},
				{"a server", server, false},
				{"dan, revoked", bad, false},
			} {
				status, body := visit(t, a, url, c.client)
				if passes := status == 200 && body == "private"; passes != c.passes {
					t.Errorf("%s: %d %q", c.who, status, body)
				}
			}
		})
	}
}

func TestNginxLayout(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost", "*.example.com"}})
	must(t, err)
	_, files := exported(t, out, ca.LayoutNginx)
	port, dir := posterntest.FreePort(t), t.TempDir()
	config := fmt.Sprintf("daemon off; error_log stderr; pid %[1]s/pid; events { } http { access_log off; "+
		"client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path "+
		"%[1]s/u; scgi_temp_path %[1]s/s;\n%[2]s }",
		dir, strings.Replace(snippet(files, port), "server_name", "return 200 public; server_name", 1))
	posterntest.Serve(t, port, "nginx", "-c", write(t, "nginx.conf", []byte(config)))
	if status, body := visit(t, a, fmt.Sprintf("https://localhost:%d/", port), nil); status != 200 ||
		body != "public" {
		t.Errorf("nginx answers %d %q", status, body)
	}
}

func TestHAProxyLayout(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"localhost"}})
	must(t, err)
	dir, files := exported(t, out, ca.LayoutHAProxy)
	info, err := os.Stat(filepath.Join(dir, "localhost.pem"))
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file that holds the key has mode %o", info.Mode().Perm())
	}
	port := posterntest.FreePort(t)
	config := "defaults\n\ttimeout client 5s\n\ttimeout server 5s\n\ttimeout connect 5s\n" + snippet(files, port) +
		"\thttp-request return status 200 content-type text/plain string public\n"
	posterntest.Serve(t, port, "haproxy", "-db", "-f", write(t, "haproxy.cfg", []byte(config)))
	if status, body := visit(t, a, fmt.Sprintf("https://localhost:%d/", port), nil); status != 200 ||
		body != "public" {
		t.Errorf("HAProxy answers %d %q", status, body)
	}
}

// TestLibvirtLayout has GnuTLS check the files in the way that libvirt does: the
// certificate alone against what cacert.pem holds.
func TestLibvirtLayout(t *testing.T) {
	certtool := posterntest.Need(t, "certtool")
	a, _ := newAuthority(t, ca.Config{Domains: []string{"example.com"}})
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"host.example.com"}})
	must(t, err)
	client, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	for name, out := range map[string]*ca.Issued{"server": server, "client": client} {
		dir, files := exported(t, out, ca.LayoutLibvirt)
		if !strings.Contains(string(files[len(files)-1].Data), "key is not RSA") {
			t.Errorf("no file warns that libvirtd wants RSA keys:\n%s", files[len(files)-1].Data)
		}
		leaf := write(t, "leaf.pem", ca.EncodeCertificates(out.Leaf))
		text := runs(t, certtool, "--verify", "--load-ca-certificate", filepath.Join(dir, "CA/cacert.pem"), "--infile",
			leaf)
		if !strings.Contains(text, "The certificate is trusted") {
			t.Errorf("certtool --verify: %s", text)
		}
		for path, mode := range map[string]os.FileMode{
			"libvirt/" + name + "cert.pem":        0o644,
			"libvirt/private/" + name + "key.pem": 0o600, "libvirt/private": 0o700,
		} {
			info, err := os.Stat(filepath.Join(dir, path))
			must(t, err)
			if info.Mode().Perm() != mode {
				t.Errorf("%s has mode %o", path, info.Mode().Perm())
			}
		}
	}
}

// TestNSS imports what is exported into NSS's database, as Firefox and Chromium
// do, and has NSS verify it.
func TestNSS(t *testing.T) {
	certutil, pk12util := posterntest.Need(t, "certutil"), posterntest.Need(t, "pk12util")
	for _, cfg := range []ca.Config{{}, {Domains: []string{"example.com"}}, {Algorithm: ca.RSA3072}} {
		for _, legacy := range []bool{false, true} {
			a, _ := newAuthority(t, cfg)
			out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
			must(t, err)
			p12, err := ca.EncodePKCS12(out.Key, out, "secret", legacy)
			must(t, err)
			dir := "sql:" + t.TempDir()
			runs(t, certutil, "-N", "-d", dir, "--empty-password")
			runs(t, certutil, "-A", "-d", dir, "-n", "root", "-t", "CT,C,C", "-a", "-i",
				write(t, "root.pem", ca.EncodeCertificates(a.Root())))
			runs(t, pk12util, "-i", write(t, "dan.p12", p12), "-d", dir, "-W", "secret", "-K", "")
			list := runs(t, certutil, "-L", "-d", dir)
			if !strings.Contains(list, "u,u,u") {
				t.Fatalf("no certificate with its key in:\n%s", list)
			}
			if !strings.HasPrefix(nickname(list), "dan until ") {
				t.Errorf("NSS lists it as %q", nickname(list))
			}
			leaf := write(t, "dan.pem", ca.EncodeCertificates(out.Leaf))
			runs(t, certutil, "-V", "-d", dir, "-n", nickname(list), "-u", "C")
			runs(t, certutil, "-A", "-d", dir, "-n", "again", "-t", ",,", "-a", "-i", leaf)
			if out, err := exec.Command(certutil, "-V", "-d", dir, "-n", nickname(list), "-u",
				"V").CombinedOutput(); err == nil {
				t.Errorf("NSS takes a client's certificate for a server's: %s", out)
			}
			server, err := a.IssueServer(t.Context(),
				ca.ServerRequest{Names: []string{"www.example.com", "localhost", "127.0.0.1"}})
			must(t, err)
			runs(t, certutil, "-A", "-d", dir, "-n", "inter", "-t", ",,", "-a", "-i",
				write(t, "i.pem", ca.EncodeCertificates(server.Chain...)))
			runs(t, certutil, "-A", "-d", dir, "-n", "www", "-t", ",,", "-a", "-i",
				write(t, "s.pem", ca.EncodeCertificates(server.Leaf)))
			runs(t, certutil, "-V", "-d", dir, "-n", "www", "-u", "V")
		}
	}
}

// TestCertificatesOfOnePersonAreToldApart imports two certificates of one person into one
// database of NSS, which lists all certificates of one subject under one name.
func TestCertificatesOfOnePersonAreToldApart(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	dir := "sql:" + t.TempDir()
	runs(t, posterntest.Need(t, "certutil"), "-N", "-d", dir, "--empty-password")
	for _, label := range []string{"phone", "laptop", ""} {
		out, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Label: label})
		must(t, err)
		renewed, err := a.Renew(t.Context(), out.Serial, ca.RenewRequest{SameKey: true})
		must(t, err)
		if renewed.Subject != out.Subject {
			t.Errorf("%s: the subject changes from %q to %q", label, out.Subject, renewed.Subject)
		}
		p12, err := ca.EncodePKCS12(out.Key, out, "secret", false)
		must(t, err)
		file := write(t, "dan.p12", p12)
		runs(t, posterntest.Need(t, "pk12util"), "-i", file, "-d", dir, "-W", "secret", "-K", "")
		name := strings.TrimSpace("dan "+label) + " until " + out.Leaf.NotAfter.UTC().Format(time.DateOnly)
		for program, args := range map[string][]string{
			"certutil": {"-L", "-d", dir},
			"certtool": {"--p12-info", "--inder", "--infile", file, "--password", "secret"},
			"openssl":  {"pkcs12", "-in", file, "-passin", "pass:secret", "-noenc"},
		} {
			if text := runs(t, posterntest.Need(t, program), args...); !strings.Contains(text, name) {
				t.Errorf("%s does not list %q:\n%s", program, name, text)
			}
		}
	}
}

// nickname returns the name under which certutil -L lists the certificate that
// has its key.
func nickname(list string) string {
	for line := range strings.Lines(list) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), "u,u,u"); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}

// TestOpenSSLVerifies holds OpenSSL against every profile, under roots with and
// without constraints.
func TestOpenSSLVerifies(t *testing.T) {
	openssl := posterntest.Need(t, "openssl")
	for _, cfg := range []ca.Config{
		{},
		{Domains: []string{"example.com", "@example.net"}},
		{Algorithm: ca.P384, Domains: []string{"example.com"}},
	} {
		a, db := newAuthority(t, cfg)
		must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dotted.name", Email: "d@example.com"}))
		server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{
			"www.example.com", "*.example.com",
			"127.0.0.1", "::1", "localhost",
		}})
		must(t, err)
		dan, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
		must(t, err)
		dotted, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dotted.name"})
		must(t, err)
		root := write(t, "root.pem", ca.EncodeCertificates(a.Root()))
		for _, c := range []struct {
			out     *ca.Issued
			purpose string
			good    bool
		}{
			{server, "sslserver", true},
			{dan, "sslclient", true},
			{dotted, "sslclient", true},
			{server, "sslclient", false},
			{dan, "sslserver", false},
		} {
			cmd := exec.Command(openssl, "verify", "-x509_strict", "-CAfile", root, "-untrusted",
				write(t, "i.pem", ca.EncodeCertificates(c.out.Chain...)), "-purpose", c.purpose,
				write(t, "c.pem", ca.EncodeCertificates(c.out.Leaf)))
			if text, err := cmd.CombinedOutput(); (err == nil) != c.good {
				t.Errorf("openssl verify -purpose %s of %s: %v\n%s", c.purpose, c.out.Subject, err, text)
			}
		}
	}
}

// keyRing keeps the authority's keys in the test's hands.
type keyRing map[string]crypto.Signer

func (k keyRing) CreateKey(_ context.Context, _, issuer string, alg ca.Algorithm) (crypto.Signer, string, error) {
	key, err := ca.GenerateKey(alg)
	k["test:"+issuer] = key
	return key, "test:" + issuer, err
}

func (k keyRing) OpenKey(uri string, _ crypto.PublicKey) (crypto.Signer, error) { return k[uri], nil }

func (keyRing) HSM(string) (string, error) { return "test:", nil }

// TestStolenIntermediateVouchesForNothingElse signs with the key of a constrained
// authority's intermediate, past all of our own checks.
func TestStolenIntermediateVouchesForNothingElse(t *testing.T) {
	openssl := posterntest.Need(t, "openssl")
	keys := keyRing{}
	a, _ := newAuthority(t, ca.Config{Domains: []string{"example.com", "192.0.2.0/24"}, KeyURI: "test:", Keys: keys})
	if _, err := a.ExportRootKey(t.Context(), "", []byte("a passphrase")); err == nil {
		t.Error("a key that lives elsewhere was exported")
	}
	roots, inter := roots(a)
	root, chain := write(t, "root.pem", ca.EncodeCertificates(a.Root())),
		write(t, "i.pem", ca.EncodeCertificates(a.Chain(ca.Server)[0]))
	subject := keys["test:server"].Public() // any key will do
	for _, c := range []struct {
		tmpl x509.Certificate
		good bool
	}{
		{x509.Certificate{DNSNames: []string{"www.example.com"}, IPAddresses: []net.IP{{192, 0, 2, 9}}}, true},
		{x509.Certificate{DNSNames: []string{"www.example.org"}}, false},
		{x509.Certificate{DNSNames: []string{"www.example.com", "example.org"}}, false},
		{x509.Certificate{DNSNames: []string{"notexample.com"}}, false},
		{x509.Certificate{IPAddresses: []net.IP{{8, 8, 8, 8}}}, false},
		{x509.Certificate{IPAddresses: []net.IP{net.ParseIP("2001:db8::1")}}, false},
		{x509.Certificate{EmailAddresses: []string{"dan@example.org"}}, false},
	} {
		c.tmpl.SerialNumber, c.tmpl.NotBefore, c.tmpl.NotAfter = big.NewInt(1), a.Root().NotBefore, a.Root().NotAfter
		der, err := x509.CreateCertificate(rand.Reader, &c.tmpl, a.Chain(ca.Server)[0], subject, keys["test:server"])
		must(t, err)
		leaf, err := x509.ParseCertificate(der)
		must(t, err)
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter})
		if (err == nil) != c.good {
			t.Errorf("crypto/x509 of %v %v %v: %v", leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses, err)
		}
		text, err := exec.Command(openssl, "verify", "-CAfile", root, "-untrusted", chain,
			write(t, "c.pem", ca.EncodeCertificates(leaf))).CombinedOutput()
		if (err == nil) != c.good || !c.good && !strings.Contains(string(text), "permitted subtree violation") {
			t.Errorf("openssl of %v %v %v: %v\n%s", leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses, err, text)
		}
	}
}
