package storetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
)

// issuer is the ID of the CA that [AddIssuer] makes known.
const issuer = "test"

// AddIssuer makes a test's own CA known to a store, by its certificate (DER).
func AddIssuer(t testing.TB, db *store.DB, certificate []byte) {
	t.Helper()
	i := ca.Issuer{ID: issuer, Role: ca.Server, Certificate: certificate, PublicKey: []byte{}}
	if err := db.CA().AddIssuers(t.Context(), []ca.Issuer{i}, nil); err != nil {
		t.Fatal(err)
	}
}

// FinishOrder records a server certificate (DER) that this CA has signed, and the
// end of its order.
func FinishOrder(
	ctx context.Context, db *store.DB, by postern.Actor, serial string, certificate []byte, f acme.Finish,
) (acme.Order, error) {
	c := ca.Certificate{Serial: serial, Issuer: issuer, Profile: ca.ProfileServer, DER: certificate}
	return db.ACME().FinishOrder(ctx, by, c, postern.Event{Kind: postern.EventCertIssued, Object: serial}, f)
}

// AddRevoked adds certificates of a CA that are revoked, as rows alone.
func AddRevoked(t testing.TB, db *store.DB, issuer string, n int) {
	t.Helper()
	at, end := db.Now().UnixMicro(), db.Now().AddDate(1, 0, 0).UnixMicro()
	insertRows(t, db, n, `INSERT INTO ca_certificates (serial, issuer, profile, person, label, subject, names,
		public_key, der, not_before, not_after, issued, renews, revoked, reason) VALUES `, func(i int) []any {
		serial := fmt.Sprintf("7%031x", i)
		return []any{
			serial, issuer, "server", "", "", "CN=" + serial, "", serial, make([]byte, 500), at, end, at, "", at,
			int64(postern.Superseded),
		}
	})
}
