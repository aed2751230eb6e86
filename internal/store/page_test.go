package store_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
	_ "modernc.org/sqlite"
)

// TestNoFilterReadsTheWholeTimeline asks SQLite how it would find what each filter
// selects, of which none selects anything: by an index of the entries, or of few blocks.
func TestNoFilterReadsTheWholeTimeline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	db := storetest.OpenConfig(t, store.Config{URL: path})
	storetest.Fill(t, db, storetest.Size{Entries: 20_000, People: 1000})
	file, err := sql.Open("sqlite", path)
	must(t, err)
	defer file.Close()
	now := db.Now()
	indexed := map[string]timeline.Filter{
		"person":           {Person: "eve"},
		"address":          {Address: "203.0.113.9"},
		"network":          {Address: "203.0.113.0/24"},
		"object":           {Object: "/none"},
		"objects":          {Object: "/none*"},
		"link":             {Link: postern.Link{Kind: "x509", ID: "none"}},
		"person and since": {Person: "eve", Since: now.Add(-storetest.Span / 2)},
		"object and kind":  {Object: "/none", Kind: postern.EventOTP},
	}
	byBlock := map[string]timeline.Filter{
		"kind":               {Kind: postern.EventPAMClosed},
		"kinds":              {Kind: "pam"},
		"outcome":            {Outcome: postern.Unknown},
		"host":               {Host: "none"},
		"since":              {Since: now.Add(time.Hour)},
		"until":              {Until: now.Add(-storetest.Span - time.Hour)},
		"outcome and kind":   {Outcome: postern.Failed, Kind: postern.EventOTP},
		"host, an hour long": {Host: "hv1", Since: now.Add(-time.Hour), Until: now.Add(-time.Minute)},
	}
	for _, last := range []bool{false, true} {
		for name, f := range indexed {
			f.Limit, f.Last = 100, last
			query, args, _ := db.Timeline().EventQuery(t.Context(), f)
			plan := explain(t, file, query, args)
			byLink := "SEARCH l USING PRIMARY KEY (kind=? AND id=? AND idx>? AND idx<?)"
			if !strings.Contains(plan, "INDEX log_") && !strings.Contains(plan, byLink) ||
				strings.Contains(plan, "SCAN e") {
				t.Errorf("%s: %s", name, plan)
			}
		}
		for name, f := range byBlock {
			f.Limit, f.Last = 100, last
			query, args, entries := db.Timeline().EventQuery(t.Context(), f)
			plan := explain(t, file, query, args)
			if !strings.Contains(plan, "(rowid>? AND rowid<?)") || strings.Contains(plan, "B-TREE") {
				t.Errorf("%s: %s", name, plan)
			}
			if entries > 512 {
				t.Errorf("%s: looks at %d entries", name, entries)
			}
		}
	}
}

// explain returns how SQLite would run a query.
func explain(t *testing.T, db *sql.DB, query string, args []any) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	must(t, err)
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		must(t, rows.Scan(&id, &parent, &unused, &detail))
		plan = append(plan, detail)
	}
	must(t, rows.Err())
	return strings.Join(plan, "; ")
}
