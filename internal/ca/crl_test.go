package ca_test

import (
	"context"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ocsp"
)

// TestListGrows revokes one certificate after the other: each list has those of the last one,
// also what a program has revoked that does not say when, and is rid of what has expired.
func TestListGrows(t *testing.T) {
	now := time.Now()
	a, db := newAuthority(t, ca.Config{Now: func() time.Time { return now }})
	var serials []string
	for range 5 {
		out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
		must(t, err)
		serials = append(serials, out.Serial)
	}
	listed := func(want ...string) ca.CRL {
		t.Helper()
		crl, err := a.CRL(t.Context(), "server")
		must(t, err)
		list, err := x509.ParseRevocationList(crl.DER)
		must(t, err)
		must(t, list.CheckSignatureFrom(a.Intermediates(ca.Server)[0]))
		var got []string
		for _, e := range list.RevokedCertificateEntries {
			got = append(got, ca.SerialString(e.SerialNumber))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("list %d has %v, want %v", crl.Number, got, want)
		}
		return crl
	}
	revoke := func(i int) { must(t, a.Revoke(t.Context(), serials[i], postern.Superseded, postern.Actor{})) }
	exec := func(query string, args ...any) {
		t.Helper()
		must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.Exec(ctx, query, args...)
			return err
		}))
	}
	exec(`UPDATE ca_certificates SET not_after = $2 WHERE serial = $1`, serials[0], now.Add(time.Hour).UnixMicro())
	first := listed()
	revoke(0)
	now = now.Add(time.Minute)
	second := listed(serials[0])
	if !second.Complete.Equal(first.Complete) {
		t.Error("the second list was not made of the first")
	}
	exec(`UPDATE ca_certificates SET revoked = 1 WHERE serial = $1`, serials[1])
	exec(`UPDATE ca_issuers SET revision = revision + 1 WHERE id = $1`, "server")
	revoke(2)
	listed(serials[0], serials[1], serials[2])
	now = now.Add(4 * 24 * time.Hour)
	revoke(3)
	listed(serials[0], serials[1], serials[2], serials[3]) // the first has expired a moment ago
	now = now.Add(4 * 24 * time.Hour)
	revoke(4)
	listed(serials[1:]...)
}

// TestClockWasAhead signs a list and an OCSP answer while the clock is a month ahead, which is
// then set right: what is valid only in a month is not handed out until then.
func TestClockWasAhead(t *testing.T) {
	right := time.Now()
	now := right.AddDate(0, 1, 0)
	a, _ := newAuthority(t, ca.Config{Now: func() time.Time { return now }})
	out, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example"}})
	must(t, err)
	must(t, a.Revoke(t.Context(), out.Serial, postern.Superseded, postern.Actor{}))
	ahead, err := a.CRL(t.Context(), "server")
	must(t, err)
	ask, err := ocsp.CreateRequest(out.Leaf, a.Intermediates(ca.Server)[0], nil)
	must(t, err)
	_, err = a.OCSP(t.Context(), ask)
	must(t, err)

	now = right
	crl, err := a.CRL(t.Context(), "server")
	must(t, err)
	list, err := x509.ParseRevocationList(crl.DER)
	must(t, err)
	if crl.Number != ahead.Number+1 || list.ThisUpdate.After(now) || len(list.RevokedCertificateEntries) != 1 ||
		list.RevokedCertificateEntries[0].RevocationTime.After(list.ThisUpdate) {
		t.Errorf("list %d after %d is of %v: %v", crl.Number, ahead.Number, list.ThisUpdate,
			list.RevokedCertificateEntries)
	}
	answer, err := a.OCSP(t.Context(), ask)
	must(t, err)
	parsed, err := ocsp.ParseResponse(answer.DER, a.Intermediates(ca.Server)[0])
	must(t, err)
	if parsed.Certificate.NotBefore.After(now) {
		t.Errorf("the answer's signer is valid from %v", parsed.Certificate.NotBefore)
	}
}
