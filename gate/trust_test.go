package gate_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/postern-project/postern/gate"
)

func TestCertificatesThatDoNotCount(t *testing.T) {
	ca := issue(t, nil, authority("Client CA"))
	twin := issue(t, nil, authority("Client CA"))
	middle := issue(t, ca, authority("Middle CA"))
	alice := func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "alice"} }
	with := func(more func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) { alice(c); more(c) }
	}
	past := with(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	})
	for _, c := range []struct {
		name  string
		shown []*signer
		want  gate.Reason
	}{
		{"right", []*signer{issue(t, ca, alice)}, gate.OK},
		{"through a middle CA", []*signer{issue(t, middle, alice), middle}, gate.OK},
		{"middle CA not shown", []*signer{issue(t, middle, alice)}, gate.AnotherCA},
		{"none", nil, gate.NoneShown},
		{"same issuer name, other key", []*signer{issue(t, twin, alice)}, gate.AnotherCA},
		{"same issuer name, CA shown along", []*signer{issue(t, twin, alice), twin}, gate.AnotherCA},
		{"signed by itself", []*signer{issue(t, nil, alice)}, gate.AnotherCA},
		{"expired", []*signer{issue(t, ca, past)}, gate.Expired},
		{"expired, of another CA", []*signer{issue(t, twin, past)}, gate.AnotherCA},
		{"not yet valid", []*signer{issue(t, ca, with(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}))}, gate.NotYetValid},
		{"for servers", []*signer{issue(t, ca, with(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}))}, gate.WrongUsage},
		{"may not sign", []*signer{issue(t, ca, with(func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyAgreement
		}))}, gate.WrongUsage},
		{"a CA itself", []*signer{middle}, gate.WrongUsage},
		{"issued by a person", []*signer{issue(t, issue(t, ca, alice), alice), issue(t, ca, alice)}, gate.AnotherCA},
	} {
		t.Run(c.name, func(t *testing.T) {
			var shown []*x509.Certificate
			for _, s := range c.shown {
				shown = append(shown, s.cert)
			}
			trust := gate.NewTrust([]*x509.Certificate{ca.cert}, nil, nil)
			v, got := trust.Verify(shown, time.Now())
			if got != c.want || (v == nil) != (got != gate.OK) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if got == gate.OK && !v.Own {
				t.Error("not taken for our own")
			}
		})
	}
}

func TestSmallKeysAreWeak(t *testing.T) {
	ca := issue(t, nil, authority("Client CA"))
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, got := gate.NewTrust([]*x509.Certificate{ca.cert}, nil, nil).Verify([]*x509.Certificate{cert},
		time.Now()); got != gate.Weak {
		t.Errorf("got %v", got)
	}
}

func TestOtherPeoplesRevocationLists(t *testing.T) {
	ca := issue(t, nil, authority("Other CA"))
	twin := issue(t, nil, authority("Other CA"))
	alice := issue(t, ca, func(*x509.Certificate) {})
	bob := issue(t, ca, func(*x509.Certificate) {})
	list := func(by *signer, next time.Time) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next,
			RevokedCertificateEntries: []x509.RevocationListEntry{{
				SerialNumber:   alice.cert.SerialNumber,
				RevocationTime: time.Now(),
			}},
		}, by.cert, by.key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, c := range []struct {
		name       string
		list       []byte
		alice, bob gate.Reason
	}{
		{"current", list(ca, time.Now().Add(time.Hour)), gate.Revoked, gate.OK},
		{"stale", list(ca, time.Now().Add(-time.Minute)), gate.Unavailable, gate.Unavailable},
		{"of a twin", list(twin, time.Now().Add(time.Hour)), gate.Unavailable, gate.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			lists, err := gate.ReadRevocationLists(c.list)
			if err != nil {
				t.Fatal(err)
			}
			trust := gate.NewTrust(nil, []*x509.Certificate{ca.cert}, lists)
			if _, got := trust.Verify([]*x509.Certificate{alice.cert}, time.Now()); got != c.alice {
				t.Errorf("alice: %v, want %v", got, c.alice)
			}
			if _, got := trust.Verify([]*x509.Certificate{bob.cert}, time.Now()); got != c.bob {
				t.Errorf("bob: %v, want %v", got, c.bob)
			}
		})
	}
}
