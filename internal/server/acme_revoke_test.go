package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http/httptest"
	"testing"

	acmez "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestACMEKnowsServerCertificatesOnly tries to revoke other certificates: a client with an
// account may ask to revoke any certificate that it has seen, and those of CAs are public.
func TestACMEKnowsServerCertificatesOnly(t *testing.T) {
	db := storetest.Open(t)
	a, err := ca.Init(t.Context(), ca.Config{Name: "Example"}, db.CA())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.People().AddPerson(t.Context(), postern.Person{Name: "dan"}); err != nil {
		t.Fatal(err)
	}
	client, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := acmeIssuer{Authority: a}
	for name, serial := range map[string]string{
		"client CA": ca.SerialString(a.Intermediates(ca.Client)[0].SerialNumber),
		"server CA": ca.SerialString(a.Intermediates(ca.Server)[0].SerialNumber),
		"person":    client.Serial,
	} {
		if _, err := issuer.Certificate(t.Context(), serial); postern.CodeOf(err) != postern.NotFound || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := issuer.Certificate(t.Context(), server.Serial); err != nil {
		t.Error(err)
	}
}

// TestACMERefusesKeysThatOthersMayKnow revokes a certificate because its key is
// compromised, and asks for another one for that key.
func TestACMERefusesKeysThatOthersMayKnow(t *testing.T) {
	db := storetest.Open(t)
	a, err := ca.Init(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	proofs := newACMEProofs(t)
	orders, err := newACME(t.Context(), &state.State{Store: db}, a, acme.Config{Anonymous: anyone},
		lookAtProofs(proofs.port()), slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { orders.Close() })
	srv := httptest.NewServer(orders)
	t.Cleanup(srv.Close)
	o := newACMEOrderer(t, srv.URL+acme.Prefix+"/directory", srv.Client(), proofs)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	order := func() (*x509.Certificate, error) {
		order, c, err := o.begin(t.Context())
		must(t, err)
		_, err = o.InitiateChallenge(t.Context(), o.account, c)
		must(t, err)
		return o.certify(t.Context(), order, key)
	}
	cert, err := order()
	must(t, err)
	_, err = order()
	must(t, err)
	must(t, o.RevokeCertificate(t.Context(), acmez.Account{}, cert, key, int(postern.KeyCompromise)))
	wantProblem := func(err error, kind string) {
		t.Helper()
		if p, ok := errors.AsType[acmez.Problem](err); !ok || p.Type != "urn:ietf:params:acme:error:"+kind {
			t.Errorf("%v, want %s", err, kind)
		}
	}
	_, err = order()
	wantProblem(err, "badCSR")
	_, err = o.NewAccount(t.Context(), acmez.Account{PrivateKey: key})
	wantProblem(err, "badPublicKey")
	_, err = o.AccountKeyRollover(t.Context(), o.account, key)
	wantProblem(err, "badPublicKey")
}
