package server_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/ca"
)

// TestNewIntermediatesCountAtOnce makes intermediates beside a running server,
// which issues with the one and lets the other's holders in without a reload.
func TestNewIntermediatesCountAtOnce(t *testing.T) {
	r := startRun(t, filepath.Join(t.TempDir(), "state"))
	old := r.me()
	if got := r.signOver(old); !strings.HasSuffix(got, "Server CA") {
		t.Fatalf("before: signed by %s", got)
	}
	// An unfinished change of the file is not loaded on this occasion.
	must(t, os.WriteFile(filepath.Join(r.state, "Caddyfile"), []byte("half a {"), 0o600))
	r.mustPostern("ca", "intermediate", "new", "server")
	r.await(func() bool { return strings.HasSuffix(r.signOver(old), "Server CA 2") })

	r.mustPostern("ca", "intermediate", "new", "client")
	dir := t.TempDir()
	person := strings.TrimSuffix(filepath.Base(old[1]), ".crt")
	r.mustPostern("ca", "issue", "--client", person, "--layout", "pem", "--out", dir)
	cert := filepath.Join(dir, person+".pem")
	if got := issuerOf(t, cert); !strings.HasSuffix(got, "Client CA 2") {
		t.Fatalf("issued by %s", got)
	}
	enter := func(flags []string) string { return r.curl(append(flags, r.url("/guarded/"))...) }
	fresh := []string{"--retry", "0", "--cert", cert, "--key", filepath.Join(dir, person+".key")}
	r.await(func() bool { return strings.Contains(enter(fresh), "You are in") })
	if got := enter(old); !strings.Contains(got, "You are in") {
		t.Errorf("the older intermediate's holder: %s", got)
	}
	if got := r.signOver(fresh); !strings.HasSuffix(got, "Server CA 2") {
		t.Errorf("the signing call does not know the new intermediate's holder: %s", got)
	}

	// The path of another address is served without a reload, too.
	r.mustPostern("ca", "url", "http://id.localhost/pki")
	list := fmt.Sprintf("http://id.localhost:%d/pki/crl/client.crl", r.http)
	r.await(func() bool { return strings.HasSuffix(r.curl("-o", "/dev/null", "--retry", "0", list), "200") })

	// Those that are revoked count no more, at once.
	r.mustPostern("ca", "revoke", r.intermediate("Server CA 2"), r.intermediate("Client CA"))
	r.await(func() bool { return strings.Contains(enter(old), "revoked") })
	if got := enter(fresh); !strings.Contains(got, "You are in") {
		t.Errorf("the living intermediate's holder: %s", got)
	}
	if got := r.signOver(old); !strings.HasSuffix(got, "403") {
		t.Errorf("the revoked intermediate's holder may sign: %s", got)
	}
	r.await(func() bool { return strings.HasSuffix(r.signOver(fresh), "Server CA") })
}

// intermediate returns the serial number of the intermediate whose common name
// ends so.
func (r *running) intermediate(name string) string {
	r.t.Helper()
	out, err := r.postern("ca", "list", "--profile", "intermediate", "--json")
	must(r.t, err)
	for line := range strings.Lines(out) {
		var c ca.Certificate
		must(r.t, json.Unmarshal([]byte(line), &c))
		if strings.HasSuffix(c.Subject, " "+name) {
			return c.Serial
		}
	}
	r.t.Fatalf("no intermediate %q in %s", name, out)
	return ""
}

// mustPostern runs a command that must succeed.
func (r *running) mustPostern(args ...string) {
	r.t.Helper()
	if out, err := r.postern(args...); err != nil {
		r.t.Fatalf("postern %v: %v\n%s", args, err, out)
	}
}

// signOver has the server sign a request, and returns its issuer's name.
func (r *running) signOver(who []string) string {
	r.t.Helper()
	key, err := ca.GenerateKey(ca.P256)
	must(r.t, err)
	der, err := x509.CreateCertificateRequest(nil, &x509.CertificateRequest{DNSNames: []string{"www.example.com"}},
		key)
	must(r.t, err)
	call, err := json.Marshal(ca.SignCall{CSR: string(pem.EncodeToMemory(&pem.Block{
		Type:  "CERTIFICATE REQUEST",
		Bytes: der,
	}))})
	must(r.t, err)
	file := filepath.Join(r.t.TempDir(), "answer")
	got := r.curl(append(who, "-o", file, "-H", "Content-Type: application/json", "--data-binary", string(call),
		strings.Replace(r.url("/api/sign"), "localhost", "id.localhost", 1))...)
	if !strings.HasSuffix(got, "201") {
		return got
	}
	text, err := os.ReadFile(file)
	must(r.t, err)
	var answer ca.SignAnswer
	must(r.t, json.Unmarshal(text, &answer))
	must(r.t, os.WriteFile(file, []byte(answer.Certificate), 0o600))
	return issuerOf(r.t, file)
}

// issuerOf returns the common name of the issuer of a PEM file's certificate.
func issuerOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no certificate in %s", file)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	return c.Issuer.CommonName
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
