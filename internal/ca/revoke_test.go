package ca_test

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"golang.org/x/crypto/ocsp"
)

// serialOf returns the serial number of a role's first intermediate.
func serialOf(a *ca.Authority, role ca.Role) string {
	return ca.SerialString(a.Intermediates(role)[0].SerialNumber)
}

// TestRevokedIntermediate revokes intermediates beside a server that has not
// reloaded yet.
func TestRevokedIntermediate(t *testing.T) {
	a, db := newAuthority(t, ca.Config{URL: "http://pki.example.com"})
	b, err := ca.Open(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	www, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example"}})
	must(t, err)
	dan, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	if _, err := b.Holder(t.Context(), []*x509.Certificate{dan.Leaf}); err != nil {
		t.Fatal(err)
	}

	for _, role := range []ca.Role{ca.Server, ca.Client} {
		must(t, a.Revoke(t.Context(), serialOf(a, role), postern.KeyCompromise, postern.Actor{}))
		wantCode(t, a.Revoke(t.Context(), serialOf(a, role), postern.KeyCompromise, postern.Actor{}), postern.Conflict,
			"already")
	}
	for who, x := range map[string]*ca.Authority{"itself": a, "another server": b} {
		_, err := x.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
		wantCode(t, err, postern.Unavailable, "the server CA was revoked")
		if postern.HintOf(err) == "" {
			t.Errorf("%s does not say what to do: %v", who, err)
		}
		_, err = x.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
		wantCode(t, err, postern.Unavailable, "the client CA was revoked")
	}
	list, err := a.Certificates(t.Context(), ca.Filter{Valid: time.Now()})
	must(t, err)
	if len(list) != 0 {
		t.Errorf("%d certificates are valid still, such as %+v", len(list), list[0])
	}
	if c, _ := db.People().Credential(t.Context(), postern.X509Certificate,
		dan.Serial); c.Status != postern.CredentialRevoked {
		t.Errorf("dan's certificate is %s", c.Status)
	}
	if c, _ := db.CA().Certificate(t.Context(), www.Serial); c.Reason != postern.CACompromise {
		t.Errorf("the certificate below was revoked for %s", c.Reason)
	}
	must(t, b.Reload(t.Context()))
	if _, err := b.Holder(t.Context(), []*x509.Certificate{dan.Leaf}); err == nil {
		t.Error("the other server still knows dan by his certificate")
	}

	// The revoked ones go on saying so.
	answer, err := a.OCSP(t.Context(), ocspQuery(t, www, nil))
	must(t, err)
	if r, err := ocsp.ParseResponse(answer.DER, www.Chain[0]); err != nil || r.Status != ocsp.Revoked {
		t.Errorf("OCSP: %v, %v", r, err)
	}
	crl, err := a.CRL(t.Context(), string(ca.Root))
	must(t, err)
	if list, err := x509.ParseRevocationList(crl.DER); err != nil || len(list.RevokedCertificateEntries) != 2 {
		t.Errorf("the root's list: %v, %v", list.RevokedCertificateEntries, err)
	}
	if _, err := a.CRL(t.Context(), string(ca.Server)); err != nil {
		t.Error(err)
	}

	// The next one takes over, and an older one when that is revoked.
	_, err = a.Renew(t.Context(), www.Serial, ca.RenewRequest{})
	wantCode(t, err, postern.Unavailable, "the server CA was revoked")
	_, err = a.NewIntermediate(t.Context(), ca.Server, nil)
	must(t, err)
	_, err = a.NewIntermediate(t.Context(), ca.Client, nil)
	must(t, err)

	// What was revoked with its CA is renewed for a new key; what was revoked for
	// itself is not.
	for _, r := range []ca.RenewRequest{{SameKey: true}, {Key: www.Leaf.PublicKey}} {
		_, err = a.Renew(t.Context(), www.Serial, r)
		wantCode(t, err, postern.Denied, "with the server CA")
	}
	renewed, err := a.Renew(t.Context(), www.Serial, ca.RenewRequest{})
	must(t, err)
	if err := renewed.Leaf.CheckSignatureFrom(a.Chain(ca.Server)[0]); err != nil || renewed.Names[0] != "www.example" {
		t.Errorf("renewed: %v, %v", renewed.Names, err)
	}
	if again, err := a.Renew(t.Context(), dan.Serial, ca.RenewRequest{}); err != nil || again.Person != "dan" {
		t.Errorf("dan's is renewed: %+v, %v", again, err)
	}
	must(t, a.Revoke(t.Context(), renewed.Serial, postern.Superseded, postern.Actor{}))
	_, err = a.Renew(t.Context(), renewed.Serial, ca.RenewRequest{})
	wantCode(t, err, postern.Denied, "is revoked")

	third, err := a.NewIntermediate(t.Context(), ca.Server, nil)
	must(t, err)
	for _, want := range []string{"Postern Server CA 3", "Postern Server CA 2"} {
		out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
		must(t, err)
		if got := out.Leaf.Issuer.CommonName; got != want {
			t.Errorf("issued by %s, want %s", got, want)
		}
		if want == "Postern Server CA 3" {
			three, err := x509.ParseCertificate(third.Certificate)
			must(t, err)
			must(t, a.Revoke(t.Context(), ca.SerialString(three.SerialNumber), postern.Superseded, postern.Actor{}))
		}
	}
}

func TestExpiredIntermediateIssuesNothing(t *testing.T) {
	now := time.Now()
	a, _ := newAuthority(t, ca.Config{IntermediateValidity: 24 * time.Hour, Now: func() time.Time { return now }})
	now = now.Add(25 * time.Hour)
	_, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	wantCode(t, err, postern.Unavailable, "the server CA has expired")
	if got := a.Trusted(ca.Server); got != nil {
		t.Errorf("%s is trusted", got[0].Subject)
	}
}

// TestKeyThatOthersMayKnow asks for certificates of a key that was revoked for
// compromise, in every way that there is.
func TestKeyThatOthersMayKnow(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	request := csr(t, x509.CertificateRequest{DNSNames: []string{"a.example"}})
	sign := func() (*ca.Issued, error) {
		return a.IssueCSR(t.Context(), request, ca.SignRequest{Profile: ca.ProfileServer})
	}
	old, err := sign()
	must(t, err)
	twin, err := a.Renew(t.Context(), old.Serial, ca.RenewRequest{SameKey: true})
	must(t, err)
	other, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)

	must(t, a.Revoke(t.Context(), other.Serial, postern.Superseded, postern.Actor{}))
	if _, err := a.IssueServer(t.Context(), ca.ServerRequest{
		Names: []string{"a.example"},
		Key:   other.Leaf.PublicKey,
	}); err != nil {
		t.Errorf("a key that is still its holder's alone: %v", err)
	}
	must(t, a.Revoke(t.Context(), old.Serial, postern.KeyCompromise, postern.Actor{}))
	if c, err := a.Load(t.Context(), twin.Serial); err != nil || c.Reason != postern.KeyCompromise {
		t.Errorf("the key's other certificate is %s, %v", c.Status(time.Now()), err)
	}
	const words = "others may know it"
	_, err = sign()
	wantCode(t, err, postern.Denied, words)
	_, err = a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"b.example"}, Key: old.Leaf.PublicKey})
	wantCode(t, err, postern.Denied, words)
	_, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Key: old.Leaf.PublicKey})
	wantCode(t, err, postern.Denied, words)
	fresh, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	_, err = a.Renew(t.Context(), fresh.Serial, ca.RenewRequest{Key: old.Leaf.PublicKey})
	wantCode(t, err, postern.Denied, words)
	wantCode(t, a.PermitKey(t.Context(), old.Leaf.PublicKey), postern.Denied, words)
	must(t, a.PermitKey(t.Context(), fresh.Leaf.PublicKey))
}

func TestKeyOfAnotherPerson(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	must(t, db.People().AddPerson(context.Background(), postern.Person{Name: "eve", Email: "eve@example.com"}))
	dan, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	_, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Key: dan.Leaf.PublicKey})
	must(t, err)
	_, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "eve", Key: dan.Leaf.PublicKey})
	wantCode(t, err, postern.Denied, "another person's certificate")
	_, err = a.IssueServer(t.Context(), ca.ServerRequest{
		Names: []string{"a.example"},
		Key:   a.Intermediates(ca.Client)[0].PublicKey,
	})
	wantCode(t, err, postern.Denied, "the key of the client CA")
}

// TestRevokeAll says what follows, and what was done before an error.
func TestRevokeAll(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	_, err := a.ValidOf(t.Context(), "dan")
	wantCode(t, err, postern.NotFound, "dan has no valid client certificate")
	for range 2 {
		_, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
		must(t, err)
	}
	serials, err := a.ValidOf(t.Context(), "dan")
	must(t, err)
	done, err := a.RevokeAll(t.Context(), append(serials, "4711"), postern.Superseded, postern.Actor{})
	wantCode(t, err, postern.NotFound, "")
	if len(done) != 2 || done[0].Serial != serials[0] || done[0].Issuer != nil {
		t.Errorf("revoked %+v", done)
	}
	first := serialOf(a, ca.Server)
	_, err = a.NewIntermediate(t.Context(), ca.Server, nil)
	must(t, err)
	done, err = a.RevokeAll(t.Context(), []string{first}, postern.Superseded, postern.Actor{})
	must(t, err)
	if len(done) != 1 || done[0].Issuer.ID != "server" || !strings.HasSuffix(done[0].Next, "Server CA 2") {
		t.Errorf("revoked %+v", done)
	}
	done, err = a.RevokeAll(t.Context(), []string{serialOf(a, ca.Client)}, postern.Superseded, postern.Actor{})
	must(t, err)
	if len(done) != 1 || done[0].Issuer.Role != ca.Client || done[0].Next != "" {
		t.Errorf("revoked %+v", done)
	}
}
