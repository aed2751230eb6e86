package acme_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// authority is a small CA for tests of the protocol alone.
type authority struct {
	db   *store.DB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu     sync.Mutex
	issued map[string]acme.Certificate
	fail   error
	gather *sync.WaitGroup // see hold
	first  func()          // happens before an issuance; nil: nothing
}

// hold lets none of the next n issuances go on before all have come.
func (a *authority) hold(n int) {
	a.gather = new(sync.WaitGroup)
	a.gather.Add(n)
}

func newAuthority(t testing.TB, db *store.DB) *authority {
	t.Helper()
	key := posterntest.NewKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true,
		BasicConstraintsValid: true,
		NotBefore:             time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	storetest.AddIssuer(t, db, der)
	return &authority{db: db, key: key, cert: cert, issued: map[string]acme.Certificate{}}
}

func (a *authority) Permit(names []string) error {
	for _, n := range names {
		if strings.HasSuffix(n, ".forbidden.test") {
			return postern.Errorf(postern.Denied, "the root may not vouch for it")
		}
	}
	return nil
}

// longest is how long this CA's certificates are valid.
const longest = time.Hour

func (a *authority) Profiles() map[string]string {
	return map[string]string{"server": "for servers", "short": "for servers that renew often"}
}

func (a *authority) Accept(t acme.Terms) (acme.Terms, error) {
	if t.Profile == "" {
		t.Profile = "server"
	}
	if a.Profiles()[t.Profile] == "" {
		return t, postern.Errorf(postern.NotFound, "there is no profile %q", t.Profile)
	}
	if !t.NotAfter.IsZero() && (time.Until(t.NotAfter) > longest || time.Until(t.NotAfter) < 0) {
		return t, postern.Errorf(postern.Invalid, "an hour at most")
	}
	return t, nil
}

func (a *authority) PermitKey(context.Context, crypto.PublicKey) error { return nil }

func (a *authority) Issue(ctx context.Context, by postern.Actor, csr []byte, names []string, terms acme.Terms,
	f acme.Finish,
) (acme.Order, error) {
	if a.gather != nil {
		a.gather.Done()
		a.gather.Wait()
	}
	if a.first != nil {
		a.first()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail != nil {
		return acme.Order{}, a.fail
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return acme.Order{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return acme.Order{}, err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now(), NotAfter: time.Now().Add(longest)}
	if !terms.NotAfter.IsZero() {
		tmpl.NotAfter = terms.NotAfter
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, req.PublicKey, a.key)
	if err != nil {
		return acme.Order{}, err
	}
	order, err := storetest.FinishOrder(ctx, a.db, by, serial.Text(16), der, f)
	if err != nil {
		return order, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	a.issued[serial.Text(16)] = acme.Certificate{
		Chain: chain, DER: der, AuthorityKeyID: a.cert.SubjectKeyId, Names: names, NotBefore: tmpl.NotBefore,
		NotAfter: tmpl.NotAfter,
	}
	return order, nil
}

func (a *authority) Certificate(_ context.Context, serial string) (acme.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.issued[serial]
	if !ok {
		return c, postern.Errorf(postern.NotFound, "no such certificate")
	}
	return c, nil
}

func (a *authority) Revoke(_ context.Context, _ postern.Actor, serial string, _ postern.RevocationReason) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.issued[serial]
	if c.Revoked {
		return postern.Errorf(postern.Conflict, "revoked already")
	}
	c.Revoked = true
	a.issued[serial] = c
	return nil
}

// issuedCerts returns how many certificates were issued, and how many of them are
// not revoked.
func (a *authority) issuedCerts() (all, good int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.issued {
		if !c.Revoked {
			good++
		}
	}
	return len(a.issued), good
}
