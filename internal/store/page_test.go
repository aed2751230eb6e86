package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
	_ "modernc.org/sqlite"
)

// filters are those that an index helps. None of them selects anything.
var filters = map[string]timeline.Filter{
	"person":  {Person: "eve"},
	"kind":    {Kind: postern.EventPAMClosed},
	"outcome": {Outcome: postern.Unknown},
	"link":    {Link: postern.Link{Kind: "x509", ID: "none"}},
}

// TestFiltersUseAnIndex asks SQLite how it would find what each filter selects: a filter
// that selects nothing does not read the whole timeline.
func TestFiltersUseAnIndex(t *testing.T) {
	path := filepath.Join(t.TempDir(), "postern.db")
	db := storetest.OpenConfig(t, store.Config{URL: path})
	fill(t, db, 200)
	file, err := sql.Open("sqlite", path)
	must(t, err)
	defer file.Close()
	for name, f := range filters {
		for _, last := range []bool{false, true} {
			f.Limit, f.Last = 100, last
			query, args := store.EventQuery(f, f.Kind)
			rows, err := file.QueryContext(context.Background(), "EXPLAIN QUERY PLAN "+query, args...)
			must(t, err)
			var plan []string
			for rows.Next() {
				var id, parent, unused int
				var detail string
				must(t, rows.Scan(&id, &parent, &unused, &detail))
				plan = append(plan, detail)
			}
			must(t, rows.Err())
			rows.Close()
			if how := fmt.Sprint(plan); strings.Contains(how, "SCAN log_events") || strings.Contains(how, "B-TREE") {
				t.Errorf("%s: %s", name, how)
			}
		}
	}
}
