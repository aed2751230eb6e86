package server_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"

	publicca "github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
)

// publicACME is an ACME server like Let's Encrypt's own, which looks for proofs
// where one server of a test listens.
type publicACME struct {
	directory string
	trust     string // PEM file: who vouches for the ACME server itself
	root      string // PEM file: who vouches for the certificates that it issues
}

func startPublicACME(t *testing.T, httpPort, tlsPort int, resolver string) publicACME {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	logger := log.New(t.Output(), "pebble ", 0)
	kept := db.NewMemoryStore()
	authority := publicca.New(logger, kept, "", "ecdsa", 0, 1, map[string]publicca.Profile{"default": {}})
	front := wfe.New(logger, kept, va.New(logger, httpPort, tlsPort, false, resolver, kept), authority,
		[]string{"ca.example"}, false, false, 1, 1)
	srv := httptest.NewTLSServer(front.Handler())
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	p := publicACME{
		directory: srv.URL + wfe.DirectoryPath, trust: filepath.Join(dir, "trust.pem"),
		root: filepath.Join(dir, "root.pem"),
	}
	writeFile(t, p.trust, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	writeFile(t, p.root, string(authority.GetRootCert(0).PEM()))
	return p
}

// TestPublicSite holds that a site with a public name gets its certificate from
// the public CA, by itself, while one with an internal name has one of
// Postern's CA.
func TestPublicSite(t *testing.T) {
	const name = "www.example.com"
	dns := posterntest.StartDNS(t)
	dns.Set(t, name, "A 127.0.0.1")
	r := unstarted(t, filepath.Join(t.TempDir(), "state"))
	public := startPublicACME(t, r.http, r.https, dns.Addr)
	if err := os.MkdirAll(r.state, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(r.state, server.ConfigFile), fmt.Sprintf(`{
	https_port %d
	http_port %d
	default_bind 127.0.0.1
	acme_ca %s
	acme_ca_root %s
	storage file_system %s
}
%s {
	respond "public page"
}
localhost {
	respond "page of this server"
}
`, r.https, r.http, public.directory, public.trust, filepath.Join(r.state, "caddy"), name))
	r.start()
	r.await(func() bool {
		made, err := filepath.Glob(filepath.Join(r.state, "caddy/certificates/*", name, name+".crt"))
		return err == nil && len(made) == 1
	})

	to := net.JoinHostPort(name, fmt.Sprint(r.https))
	got := r.curl("--cacert", public.root, "--resolve", to+":127.0.0.1", "https://"+to+"/")
	if got != "public page\n200" {
		t.Errorf("with the public root: %q", got)
	}
	root := filepath.Join(t.TempDir(), "root.pem")
	writeFile(t, root, string(ca.EncodeCertificates(rootOf(t, r.state))))
	if got := r.curl("--cacert", root, r.url("/")); got != "page of this server\n200" {
		t.Errorf("with its own root: %q", got)
	}
	if out, err := r.postern("ca", "list"); err != nil || strings.Contains(out, name) ||
		!strings.Contains(out, "localhost") {
		t.Errorf("its own certificates: %v\n%s", err, out)
	}
}

// TestAPublicCARefuses serves names that a public CA cannot validate: the log says
// so in one line with the fix, and the site that names Postern's CA besides is served
// with its certificate.
func TestAPublicCARefuses(t *testing.T) {
	const own, alone = "intranet.example.com", "www.example.com"
	dns := posterntest.StartDNS(t)
	r := unstarted(t, filepath.Join(t.TempDir(), "state"))
	public := startPublicACME(t, r.http, r.https, dns.Addr)
	if err := os.MkdirAll(r.state, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(r.state, server.ConfigFile), fmt.Sprintf(`{
	https_port %d
	http_port %d
	default_bind 127.0.0.1
	acme_ca %[3]s
	acme_ca_root %[4]s
}
%[5]s {
	tls {
		issuer acme {
			dir %[3]s
			trusted_roots %[4]s
		}
		issuer postern
	}
	respond "page of this server"
}
%[6]s {
	respond "public page"
}
`, r.https, r.http, public.directory, public.trust, own, alone))
	r.start()
	to := net.JoinHostPort(own, fmt.Sprint(r.https))
	root := filepath.Join(t.TempDir(), "root.pem")
	writeFile(t, root, string(ca.EncodeCertificates(rootOf(t, r.state))))
	if got := r.curl("--cacert", root, "--resolve", to+":127.0.0.1", "https://"+to+"/"); !strings.HasSuffix(got,
		"page of this server\n200") {
		t.Errorf("with its own root: %q", got)
	}
	r.await(func() bool { return strings.Contains(r.out.String(), "no certificate for "+alone) })
	said := map[string]int{}
	for line := range strings.Lines(r.out.String()) {
		for _, name := range []string{own, alone} {
			if strings.Contains(line, name) && !strings.Contains(line, " serves ") {
				said[name]++
				if !strings.Contains(line, "no certificate for "+name) || !strings.Contains(line, "issuer postern") ||
					!strings.Contains(line, "To fix it, ") {
					t.Errorf("another line: %s", line)
				}
			}
		}
		if strings.Contains(line, own) && strings.Contains(line, "To fix it") && !strings.Contains(line,
			"is served with a certificate of Postern's CA") {
			t.Errorf("it is not said what is served: %s", line)
		}
	}
	if said[own] != 1 || said[alone] != 1 {
		t.Errorf("%v\n%s", said, r.out)
	}
}

// rootOf reads the root certificate of a state.
func rootOf(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	st, err := state.Open(t.Context(), dir)
	must(t, err)
	defer st.Close()
	authority, err := ca.Open(t.Context(), ca.Config{}, st.Store.CA())
	must(t, err)
	return authority.Root()
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
