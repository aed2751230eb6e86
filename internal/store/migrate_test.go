package store_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
	_ "modernc.org/sqlite"
)

// TestTimelineMovesToDenseTables opens a file as older programs left it.
func TestTimelineMovesToDenseTables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "postern.db")
	open := func() *store.DB {
		t.Helper()
		db, err := store.Open(t.Context(), store.Config{URL: file, Key: storetest.Key})
		must(t, err)
		return db
	}
	db := open()
	fill(t, db, 600)
	must(t, db.Close())

	raw, err := sql.Open("sqlite", file)
	must(t, err)
	for _, s := range append(store.DenseDown, `DELETE FROM goose_db_version WHERE version_id = 3`) {
		_, err := raw.Exec(s)
		must(t, err)
	}
	must(t, raw.Close())

	db = open()
	defer db.Close()
	fill(t, db, 10)
	r, err := db.Timeline().VerifyLog(t.Context())
	if err != nil || len(r.Problems) > 0 || r.Size != 611 {
		t.Errorf("%+v %v", r, err)
	}
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{Link: postern.Link{Kind: "x509", ID: "5"}})
	if err != nil || len(events) != 61 {
		t.Errorf("%d events with a link, %v", len(events), err)
	}
}

// TestWhoSignedUpIsMarked opens a store of before there was the mark.
func TestWhoSignedUpIsMarked(t *testing.T) {
	c := store.Config{URL: storetest.URL(t), Key: storetest.Key}
	db, err := store.Open(t.Context(), c)
	must(t, err)
	by := map[string]string{"by": "boss"}
	for name, added := range map[string]postern.Event{
		"byhand":   {Details: map[string]string{"by": "root"}},
		"unnamed":  {}, // the actor has no name: an administrator with the command line
		"invited":  {Address: "192.0.2.1", Details: by},
		"herself":  {Address: "192.0.2.2"},
		"marked":   {Address: "192.0.2.3"},
		"approved": {Address: "192.0.2.4"},
		"moved":    {Address: "192.0.2.5"},
		"refused":  {Address: "192.0.2.6", Outcome: postern.Refused},
	} {
		p := postern.Person{Name: name}
		if name == "marked" {
			p.Groups = []string{postern.SignedUp}
		}
		must(t, db.People().AddPerson(t.Context(), p))
		added.Kind, added.Person = postern.EventPersonAdded, name
		must(t, db.Append(t.Context(), added))
	}
	must(t, db.Append(t.Context(),
		postern.Event{
			Kind: postern.EventPersonChanged, Person: "approved", Details: by,
			Reason: "left the group signed-up",
		},
		postern.Event{
			Kind: postern.EventPersonChanged, Person: "moved", Details: by,
			Reason: "address a@example.com changed to b@example.com",
		}))
	keepWhole(t, db)
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM goose_db_version WHERE version_id = 302`)
		return err
	}))
	must(t, db.Close())

	db, err = store.Open(t.Context(), c)
	must(t, err)
	defer db.Close()
	people, err := db.People().All(t.Context())
	must(t, err)
	var marked []string
	for _, p := range people {
		if slices.Contains(p.Groups, postern.SignedUp) {
			marked = append(marked, p.Name)
		}
	}
	if want := []string{"herself", "marked", "moved"}; !slices.Equal(marked, want) {
		t.Errorf("%v are marked, not %v", marked, want)
	}
}

// keepWhole writes the entries into their rows as earlier versions did.
func keepWhole(t *testing.T, db *store.DB) {
	t.Helper()
	events, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	must(t, err)
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		for _, e := range events {
			entry, err := timeline.Encode(e)
			if err != nil {
				return err
			}
			const whole = `UPDATE log_events SET line = $1 WHERE idx = $2`
			if _, err := tx.Exec(ctx, whole, string(entry), e.Index); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestEntriesOfBeforeAreRead reads and verifies entries as earlier versions kept them.
func TestEntriesOfBeforeAreRead(t *testing.T) {
	db := storetest.Open(t)
	fill(t, db, 300)
	want, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	must(t, err)
	keepWhole(t, db)
	fill(t, db, 10)
	if r := verify(t, db); len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
	got, err := db.Timeline().Events(t.Context(), timeline.Filter{Limit: len(want)})
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Error("what is read is not what was written")
	}
	if found, err := db.Timeline().Events(t.Context(), timeline.Filter{Host: "hv39"}); err != nil || len(found) != 2 {
		t.Errorf("the entries of a host: %v, %v", found, err)
	}
}
