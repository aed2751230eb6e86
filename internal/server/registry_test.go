package server

import (
	"context"
	"crypto/x509"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestStatusIsOfTheIssuersCertificate looks up certificates with the serial number of a
// valid one, as an attacker with a stolen CA key could make them.
func TestStatusIsOfTheIssuersCertificate(t *testing.T) {
	db := storetest.Open(t)
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dan"}))
	a, err := ca.Init(t.Context(), ca.Config{}, db.CA())
	must(t, err)
	dan, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	_, err = a.NewIntermediate(t.Context(), ca.Client, nil)
	must(t, err)
	issuers := a.Intermediates(ca.Client)
	status := func(issuer *x509.Certificate) (postern.CredentialStatus, error) {
		c, _, err := frontRegistry{db}.Certificate(t.Context(), dan.Serial, issuer)
		return c.Status, err
	}
	if got, err := status(issuers[0]); got != postern.CredentialActive || err != nil {
		t.Errorf("dan's own: %s, %v", got, err)
	}
	if _, err := status(issuers[1]); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("another issuer's with dan's serial number: %v", err)
	}
	// One that was issued at the time of the revocation.
	must(t, a.Revoke(t.Context(), ca.SerialString(issuers[0].SerialNumber), postern.KeyCompromise, postern.Actor{}))
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE credentials SET status = 'active' WHERE id = $1`, dan.Serial)
		return err
	}))
	if got, err := status(issuers[0]); got != postern.CredentialRevoked || err != nil {
		t.Errorf("under a revoked intermediate: %s, %v", got, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
