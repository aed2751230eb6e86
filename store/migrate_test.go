package store_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/store"
	"github.com/postern-project/postern/store/storetest"
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
	r, err := db.VerifyLog(t.Context())
	if err != nil || len(r.Problems) > 0 || r.Size != 611 {
		t.Errorf("%+v %v", r, err)
	}
	events, err := db.Events(t.Context(), timeline.Filter{Link: postern.Link{Kind: "x509", ID: "5"}})
	if err != nil || len(events) != 61 {
		t.Errorf("%d events with a link, %v", len(events), err)
	}
}
