package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
)

// notOfARetiredCA asks who issued a certificate that has expired, as a guard does for one that who has the key
// of a retired CA signed with its serial number.
func notOfARetiredCA(t *testing.T, open opener) {
	db := open(t)
	must(t, db.CA().AddIssuers(t.Context(), []ca.Issuer{
		{ID: "client", Role: ca.Client, Certificate: []byte("old"), PublicKey: []byte("1")},
		{ID: "client-2", Role: ca.Client, Certificate: []byte("new"), PublicKey: []byte("2")},
	}, []ca.Certificate{{
		Serial: "0a", Issuer: "client", Profile: ca.ProfileClient, DER: []byte("x"), NotAfter: db.Now().Add(-time.Hour),
	}}))
	for _, retired := range []bool{false, true} {
		if retired {
			must(t, db.CA().Retire(t.Context(), []string{"client"}, nil, false, db.Now(), postern.Event{
				Kind: postern.EventCARetired, Details: map[string]string{},
			}))
		}
		must(t, db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			issued, ended, err := tx.IssuedBy(ctx, "0a", []byte("old"))
			if !issued || ended != retired {
				t.Errorf("retired %t: issued %t, ended %t", retired, issued, ended)
			}
			return err
		}))
	}
}

// retiredAtOnce has two processes each retire one of two roots, each of which saw the other.
func retiredAtOnce(t *testing.T, open opener) {
	db := open(t)
	var list []ca.Issuer
	for _, id := range []string{"root", "server", "client", "root-2", "server-2", "client-2"} {
		role, _, _ := strings.Cut(id, "-")
		list = append(list, ca.Issuer{ID: id, Role: ca.Role(role), PublicKey: []byte(id)})
	}
	must(t, db.CA().AddIssuers(t.Context(), list, nil))
	event := postern.Event{Kind: postern.EventCARetired, Outcome: postern.OK, Details: map[string]string{}}
	retire := func(ctx context.Context, ids ...string) error {
		return db.CA().Retire(ctx, ids, nil, false, time.Now(), event)
	}
	must(t, retire(t.Context(), "root", "server", "client"))
	if err := retire(t.Context(), "root-2", "server-2", "client-2"); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("the last root is retired: %v", err)
	}
	if err := retire(t.Context(), "root", "server", "client"); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a root is retired twice: %v", err)
	}
	issuers, err := db.CA().Issuers(t.Context())
	must(t, err)
	for _, i := range issuers {
		if strings.HasSuffix(i.ID, "-2") != i.Retired.IsZero() {
			t.Errorf("%s was retired at %v", i.ID, i.Retired)
		}
	}
}
