package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/piv/pivtest"
)

const attestedBy = "YubiKey 5.7.4, serial number 42, PIN once, touch always"

// request returns a certificate request of a key.
func request(t *testing.T, key *ecdsa.PrivateKey, tmpl x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func TestAttestedKeys(t *testing.T) {
	maker := pivtest.NewMaker(t)
	a, _ := newAuthority(t, ca.Config{Makers: write(t, "roots.pem", maker.RootPEM())})
	key, other := pivtest.NewKey(t), pivtest.NewKey(t)
	attestation := maker.Attest(&key.PublicKey)

	issued, err := a.IssueCSR(t.Context(), request(t, key, x509.CertificateRequest{}), ca.SignRequest{
		Person: "dan", Attestation: attestation,
	})
	must(t, err)
	if got := issued.Attested(); got != attestedBy || issued.Event.Details["attested"] != attestedBy {
		t.Errorf("attested by %q, event %v", got, issued.Event.Details)
	}
	loaded, err := a.Load(t.Context(), issued.Serial)
	must(t, err)
	if loaded.Attested() != attestedBy {
		t.Errorf("loaded: %q", loaded.Attested())
	}

	same, err := a.Renew(t.Context(), issued.Serial, ca.RenewRequest{SameKey: true})
	must(t, err)
	if same.Attested() != attestedBy {
		t.Errorf("renewed for the same key: %q", same.Attested())
	}
	for name, r := range map[string]ca.RenewRequest{"a key made here": {}, "another key": {Key: &other.PublicKey}} {
		t.Run("renewed for "+name, func(t *testing.T) {
			renewed, err := a.Renew(t.Context(), issued.Serial, r)
			must(t, err)
			if renewed.Attested() != "" {
				t.Errorf("attested: %s", renewed.Attested())
			}
		})
	}
	t.Run("without a request", func(t *testing.T) {
		fresh := pivtest.NewKey(t)
		out := ca.Output{Dir: t.TempDir(), Layouts: []ca.Layout{ca.LayoutPEM}}
		i, err := out.Issue(t.Context(), a, "", ca.SignRequest{
			Person:      "dan",
			Attestation: maker.Attest(&fresh.PublicKey),
		})
		must(t, err)
		if i.Key != nil || !fresh.PublicKey.Equal(i.Leaf.PublicKey) || i.Attested() != attestedBy {
			t.Errorf("key made: %t, attested: %q", i.Key != nil, i.Attested())
		}
		_, err = out.Write(i)
		must(t, err)
	})
}

func TestAttestationsThatProveNothing(t *testing.T) {
	maker, foreign := pivtest.NewMaker(t), pivtest.NewMaker(t)
	a, _ := newAuthority(t, ca.Config{Makers: write(t, "roots.pem", maker.RootPEM())})
	key, other := pivtest.NewKey(t), pivtest.NewKey(t)
	lie := x509.CertificateRequest{ExtraExtensions: []pkix.Extension{
		pivtest.Extension(3, 5, 7, 4), pivtest.Extension(8, 2, 2),
		{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}},
	}}
	plain := request(t, key, x509.CertificateRequest{})
	for name, c := range map[string]struct {
		csr         []byte
		attestation []byte
		code        postern.Code
		words       string
	}{
		"of another key":         {plain, maker.Attest(&other.PublicKey), postern.Denied, "of another key"},
		"of a maker not trusted": {plain, foreign.Attest(&key.PublicKey), postern.Denied, "no known maker"},
		"unreadable":             {plain, []byte("attestation"), postern.Invalid, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.IssueCSR(t.Context(), c.csr, ca.SignRequest{Person: "dan", Attestation: c.attestation})
			wantCode(t, err, c.code, c.words)
		})
	}
	t.Run("extensions in the request", func(t *testing.T) {
		i, err := a.IssueCSR(t.Context(), request(t, key, lie), ca.SignRequest{Person: "dan"})
		must(t, err)
		if i.Attested() != "" || len(i.Event.Details["attested"]) > 0 {
			t.Errorf("attested by its own request: %s", i.Attested())
		}
	})
	t.Run("of a key that is not known, without a request", func(t *testing.T) {
		out := ca.Output{Dir: t.TempDir(), Layouts: []ca.Layout{ca.LayoutPEM}}
		i, err := out.Issue(t.Context(), a, "", ca.SignRequest{Person: "dan", Attestation: maker.AttestUnknown()})
		if err == nil {
			t.Errorf("attested for a key that was made here: %s", i.Attested())
		}
		wantCode(t, err, postern.Denied, "not known")
	})
	t.Run("with a type for the key", func(t *testing.T) {
		out := ca.Output{Dir: t.TempDir(), Layouts: []ca.Layout{ca.LayoutPEM}}
		_, err := out.Issue(t.Context(), a, ca.RSA3072, ca.SignRequest{
			Person: "dan", Attestation: maker.Attest(&key.PublicKey),
		})
		wantCode(t, err, postern.Invalid, "no key is made")
	})
	t.Run("for a server", func(t *testing.T) {
		r := ca.SignRequest{Names: []string{"www.example.com"}, Attestation: maker.Attest(&key.PublicKey)}
		for _, issue := range []func(context.Context) (*ca.Issued, error){
			func(ctx context.Context) (*ca.Issued, error) { return a.IssueCSR(ctx, plain, r) },
			func(ctx context.Context) (*ca.Issued, error) { return ca.Output{Dir: t.TempDir()}.Issue(ctx, a, "", r) },
		} {
			_, err := issue(t.Context())
			wantCode(t, err, postern.Invalid, "a person's certificate")
		}
	})
}
