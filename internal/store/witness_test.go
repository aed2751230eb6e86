package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/timeline"
)

// vouched changes what is kept of a witness, as who can write to the database does.
func vouched(t *testing.T, open opener) {
	db := open(t)
	fill(t, db, 70)
	signed := verify(t, db).Checkpoint
	key, err := timeline.NewWitnessKey("w.example")
	must(t, err)
	at := time.Unix(1700000000, 0).UTC()
	w, err := timeline.NewCosigner(key.Secret, func() time.Time { return at })
	must(t, err)
	text, _, _ := strings.Cut(signed, "\n\n")
	line, err := w.Cosign(text + "\n")
	must(t, err)
	kept := timeline.Witnessed{Name: "w", Key: key.Verifier, Size: 71, Time: at, Checkpoint: signed + line}
	says := func(want bool) {
		t.Helper()
		r := verify(t, db)
		if len(r.Problems) == 0 != want || len(r.Witnesses) != 1 || r.Witnesses[0].Size == 71 != want ||
			strings.Contains(r.Witnesses[0].String(), "vouches") != want {
			t.Errorf("want %v: %v, %v", want, r.Witnesses, r.Problems)
		}
	}
	must(t, db.Timeline().KeepWitnessed(t.Context(), []timeline.Witnessed{kept}, ""))
	says(true)
	for _, change := range []string{
		`UPDATE log_witnesses SET size = 72`, `UPDATE log_witnesses SET time = time + 1000000`,
		`UPDATE log_witnesses SET checkpoint = ''`, `UPDATE log_witnesses SET checkpoint = 'x' || checkpoint`,
	} {
		must(t, db.Timeline().KeepWitnessed(t.Context(), []timeline.Witnessed{kept}, ""))
		tamper(t, db, change)
		says(false)
	}
	kept.Checkpoint = signed // which no witness saw
	must(t, db.Timeline().KeepWitnessed(t.Context(), []timeline.Witnessed{kept}, ""))
	says(false)
	must(t, db.Timeline().KeepWitnessed(t.Context(), []timeline.Witnessed{{Name: "w", Key: key.Verifier}}, ""))
	if r := verify(t, db); len(r.Problems) > 0 {
		t.Errorf("a witness that was not asked yet: %v", r.Problems)
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
