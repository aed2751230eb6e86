package store_test

import (
	"strings"
	"testing"
	"time"

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
