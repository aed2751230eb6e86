package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// acmeRig is the ACME server over a real store and authority. Each client has its own
// name with its own loopback address, so that many run at once.
type acmeRig struct {
	db        *store.DB
	ca        *ca.Authority
	dns       *posterntest.DNS
	look      reach.Config
	directory string
	root      string // PEM file of the root
}

func newACMERig(t *testing.T) *acmeRig {
	t.Helper()
	rig := &acmeRig{db: storetest.Open(t), dns: posterntest.StartDNS(t), root: filepath.Join(t.TempDir(), "root.pem")}
	var err error
	if rig.ca, err = ca.Init(t.Context(), ca.Config{Name: "Example"}, rig.db.CA()); err != nil {
		t.Fatal(err)
	}
	writeFile(t, rig.root, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rig.ca.Root().Raw})))
	rig.look = reach.Config{
		Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Resolver: rig.dns.Addr,
		HTTPPort: posterntest.FreePort(t), TLSPort: posterntest.FreePort(t),
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	orders, err := newACME(t.Context(), &state.State{Store: rig.db}, rig.ca, acme.Config{}, rig.look, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { orders.Close() })
	rig.directory = serveTLS(t, rig.ca, orders) + acme.Prefix + "/directory"
	if err := rig.db.People().AddPerson(t.Context(), postern.Person{
		Name:  "alice",
		Email: "alice@example.com",
	}); err != nil {
		t.Fatal(err)
	}
	return rig
}

// anyone lets accounts that no person stands for do everything.
func anyone(netip.Addr, []string) bool { return true }

// serveTLS serves with a certificate of the authority's, and returns the URL.
func serveTLS(t *testing.T, a *ca.Authority, h http.Handler) string {
	t.Helper()
	key, csr := clientCSR(t)
	issued, err := a.IssueCSR(t.Context(), csr, ca.SignRequest{
		Profile: ca.ProfileServer,
		Names:   []string{"localhost", "127.0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{issued.Leaf.Raw, issued.Chain[0].Raw},
		PrivateKey:  key,
	}}}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return "https://localhost" + srv.URL[strings.LastIndex(srv.URL, ":"):]
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// external makes a key that binds an account to alice.
func (rig *acmeRig) external(t testing.TB) (id, secret string) {
	t.Helper()
	k := acme.NewExternalKey("alice", t.Name(), time.Now())
	if err := rig.db.ACME().AddExternalKey(t.Context(), postern.Actor{}, k,
		acme.KeyEvent(k.Person, k.ID, k.Label, postern.ACMEKeyMade)); err != nil {
		t.Fatal(err)
	}
	return k.ID, base64.RawURLEncoding.EncodeToString(k.Secret)
}

// acmeSite is what one client gets certificates for.
type acmeSite struct {
	t          *testing.T
	rig        *acmeRig
	name, addr string // host name, and the loopback address that it leads to
	dir        string // for the client's files
	kid, hmac  string // external account binding
	env        []string
}

// site makes the n'th site.
func (rig *acmeRig) site(t *testing.T, n int) *acmeSite {
	t.Helper()
	s := &acmeSite{
		t: t, rig: rig, name: fmt.Sprintf("site%d.example.test", n), addr: fmt.Sprintf("127.0.0.%d", n),
		dir: t.TempDir(),
	}
	rig.dns.Set(t, s.name, "A "+s.addr)
	s.kid, s.hmac = rig.external(t)
	s.env = append(os.Environ(), "HOME="+s.dir, "CURL_CA_BUNDLE="+rig.root, "REQUESTS_CA_BUNDLE="+rig.root,
		"LEGO_CA_CERTIFICATES="+rig.root)
	return s
}

func (s *acmeSite) httpPort() string { return fmt.Sprint(s.rig.look.HTTPPort) }
func (s *acmeSite) path(name string) string {
	return filepath.Join(s.dir, name)
}

// webroot serves a directory at the site's address and returns where the proofs
// go.
func (s *acmeSite) webroot() string {
	s.t.Helper()
	root := s.path("www")
	proofs := filepath.Join(root, ".well-known", "acme-challenge")
	if err := os.MkdirAll(proofs, 0o755); err != nil {
		s.t.Fatal(err)
	}
	web := newWebServer(s.t, s.addr+":"+s.httpPort())
	web.says(http.FileServer(http.Dir(root)).ServeHTTP)
	return proofs
}

// run runs the client, which must succeed.
func (s *acmeSite) run(program string, args ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), posterntest.Need(s.t, program), args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// holds checks that a file has a certificate for the site that is valid under the root,
// and returns its serial number.
func (s *acmeSite) holds(file string) string {
	s.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.check(data)
}

func (s *acmeSite) check(chain []byte) string {
	s.t.Helper()
	var leaf *x509.Certificate
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(s.rig.ca.Root())
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			s.t.Fatal(err)
		}
		if leaf == nil {
			leaf = c
		}
		others.AddCert(c)
	}
	if leaf == nil {
		s.t.Fatalf("no certificate in %q", chain)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: s.name, Roots: roots, Intermediates: others}); err != nil {
		s.t.Fatal(err)
	}
	return ca.SerialString(leaf.SerialNumber)
}

// knows checks that the store has exactly these certificates for the site, all of alice,
// and whether each is revoked.
func (s *acmeSite) knows(revoked map[string]bool) {
	s.t.Helper()
	certs, err := s.rig.db.CA().Certificates(s.t.Context(), ca.Filter{Name: s.name})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(certs) != len(revoked) {
		s.t.Errorf("the store knows %d certificates for %s, the client %d", len(certs), s.name, len(revoked))
	}
	for _, c := range certs {
		want, ok := revoked[c.Serial]
		if !ok || want == c.Revoked.IsZero() || c.Person != "alice" {
			s.t.Errorf("certificate %s of %q: revoked %v, want %v", c.Serial, c.Person, !c.Revoked.IsZero(), want)
		}
	}
}
