package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	client "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"go.uber.org/zap"
)

// caddy gets certificates as Caddy does, with its library.
func caddy(s *acmeSite) (first, second string) {
	storage := &certmagic.FileStorage{Path: s.dir}
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		Logger:           zap.NewNop(),
	})
	s.t.Cleanup(cache.Stop)
	config = certmagic.New(cache, certmagic.Config{Storage: storage, Logger: zap.NewNop()})
	roots := x509.NewCertPool()
	roots.AddCert(s.rig.ca.Root())
	issuer := certmagic.NewACMEIssuer(config, certmagic.ACMEIssuer{
		CA: s.rig.directory, TrustedRoots: roots, Email: "alice@example.com", Agreed: true, Logger: zap.NewNop(),
		ExternalAccount: &client.EAB{KeyID: s.kid, MACKey: s.hmac},
		ListenHost:      s.addr, AltHTTPPort: s.rig.look.HTTPPort, AltTLSALPNPort: s.rig.look.TLSPort,
	})
	config.Issuers = []certmagic.Issuer{issuer}
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	file := s.path(certmagic.StorageKeys.SiteCert(issuer.IssuerKey(), s.name))
	must(config.ObtainCertSync(s.t.Context(), s.name))
	first = s.holds(file)
	must(config.RenewCertSync(s.t.Context(), s.name, true))
	second = s.holds(file)
	must(config.RevokeCert(s.t.Context(), s.name, 4, false))
	return first, second
}

// TestApacheIsAnACMEClient checks that mod_md gets a certificate and renews it at once, as
// it is configured, and that Apache serves each after a graceful restart.
func TestApacheIsAnACMEClient(t *testing.T) {
	rig := newACMERig(t)
	s := rig.site(t, 31)
	dir := posterntest.OpenDir(t) // Apache's workers run as another user
	root, store := filepath.Join(dir, "root.pem"), filepath.Join(dir, "md")
	if err := os.WriteFile(root, ca.EncodeCertificates(rig.ca.Root()), 0o644); err != nil {
		t.Fatal(err)
	}
	port := posterntest.FreePort(t)
	posterntest.Apache(t, port, fmt.Sprintf(`LoadModule md_module /usr/lib/apache2/modules/mod_md.so
PidFile %[1]s/apache.pid
Listen %[2]s:%[3]d
Listen %[2]s:%[4]d
ServerAdmin alice@example.com
MDStoreDir %[5]s
MDCertificateAuthority %[6]s
MDCACertificateFile %[7]s
MDCertificateAgreement accepted
MDExternalAccountBinding %[8]s %[9]s
MDPrivateKeys secp256r1
MDRenewWindow 3650d
MDPortMap http:%[3]d https:%[4]d
MDCAChallenges http-01
MDomain %[10]s manual
<VirtualHost %[2]s:%[4]d>
ServerName %[10]s
SSLEngine on
</VirtualHost>
`, s.dir, s.addr, rig.look.HTTPPort, rig.look.TLSPort, store, rig.directory, root, s.kid, s.hmac, s.name))

	apache := &apacheMD{acmeSite: s, store: store}
	first := apache.activates("")
	apache.activates(first)
	certs, err := rig.db.CA().Certificates(t.Context(), ca.Filter{Name: s.name})
	if err != nil || len(certs) < 2 {
		t.Fatalf("the store knows %d certificates: %v", len(certs), err)
	}
	for _, c := range certs {
		if c.Person != "alice" || !c.Revoked.IsZero() {
			t.Errorf("certificate %s of %q, revoked %v", c.Serial, c.Person, c.Revoked)
		}
	}
}

// apacheMD is an Apache that gets the certificates of one site.
type apacheMD struct {
	*acmeSite
	store string // of mod_md
}

// activates waits until mod_md has got another certificate than the one that is
// served, restarts Apache, and returns what it serves then.
func (a *apacheMD) activates(old string) (serial string) {
	a.t.Helper()
	await(a.t, "mod_md has a certificate", func() bool {
		job, err := os.ReadFile(filepath.Join(a.store, "staging", a.name, "job.json"))
		return err == nil && strings.Contains(strings.ReplaceAll(string(job), " ", ""), `"finished":true`)
	})
	pid, err := os.ReadFile(a.path("apache.pid"))
	if err != nil {
		a.t.Fatal(err)
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(pid)))
	if err != nil {
		a.t.Fatal(err)
	}
	if err := syscall.Kill(number, syscall.SIGUSR1); err != nil {
		a.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.rig.ca.Root())
	await(a.t, "Apache serves it", func() bool {
		conn, err := tls.Dial("tcp", fmt.Sprintf("%s:%d", a.addr, a.rig.look.TLSPort),
			&tls.Config{ServerName: a.name, RootCAs: roots})
		if err != nil {
			return false
		}
		defer conn.Close()
		serial = ca.SerialString(conn.ConnectionState().PeerCertificates[0].SerialNumber)
		return serial != old
	})
	return serial
}

// await waits until something holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("did not happen: %s", what)
		}
	}
}
