package store_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// logKeyFollowed has one server make the next key and retire the one before, while another
// writes on: who has the key of either time verifies what was signed then, and while both
// signed.
func logKeyFollowed(t *testing.T, open opener) {
	db, other := open(t), open(t)
	write := func(by *store.DB) {
		t.Helper()
		must(t, by.Append(t.Context(), postern.Event{Kind: postern.EventConfigLoaded}))
	}
	proof := func() []byte {
		t.Helper()
		p, err := db.Timeline().ProveEvent(t.Context(), 1)
		must(t, err)
		text, err := json.Marshal(p)
		must(t, err)
		return text
	}
	sound := func(earlier ...string) string {
		t.Helper()
		var last string
		for _, by := range []*store.DB{db, other} {
			report, err := by.Timeline().VerifyLog(t.Context(), earlier...)
			must(t, err)
			if len(report.Problems) > 0 {
				t.Errorf("the timeline has the problems %v", report.Problems)
			}
			last = report.Checkpoint
		}
		return last
	}
	holds := func(key string, text []byte, want bool) {
		t.Helper()
		if _, err := timeline.CheckProof(text, key); (err == nil) != want {
			t.Errorf("a proof holds by the key %s: %v, want %v", key, err, want)
		}
	}
	write(db)
	write(other)
	first := db.Timeline().LogVerifier()
	before, early := proof(), sound()

	next, err := db.Timeline().NewLogKey(t.Context())
	must(t, err)
	if _, err := other.Timeline().NewLogKey(t.Context()); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a third key is made: %v", err)
	}
	for _, by := range []*store.DB{other, db} {
		write(by)
		both := proof()
		holds(first, both, true)
		holds(next, both, true)
	}
	sound(early)

	must(t, db.Timeline().RetireLogKey(t.Context()))
	sound(early)
	for _, by := range []*store.DB{other, db} {
		write(by)
		late := proof()
		holds(first, late, false)
		holds(next, late, true)
		holds(by.Timeline().LogVerifier(), late, true)
		holds(by.Timeline().LogVerifier(), before, true)
	}
	holds(first, before, true)
	sound(early)
	if err := other.Timeline().RetireLogKey(t.Context()); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("the only key is retired: %v", err)
	}
	if _, err := db.Rewrap(t.Context()); err != nil {
		t.Errorf("keys are not sealed again: %v", err)
	}
	again, err := other.Timeline().NewLogKey(t.Context())
	must(t, err)
	keys := other.Timeline().LogVerifier()
	if strings.Count(keys, "\n") != 2 || !strings.HasSuffix(keys, "retired "+first) {
		t.Errorf("after %s the keys are\n%s", again, keys)
	}
	sound(early)
}
