package store_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

// TestLarge prints what an installation of ten years costs: how long the first page of
// each list takes, how long the timeline is on disk, how much memory it takes to read all of
// it, how long SQLite's journal gets while all is verified. POSTERN_LARGE names a SQLite
// file that is filled once and kept.
func TestLarge(t *testing.T) {
	posterntest.Soak(t)
	large := storetest.Large
	t.Logf("the fixture: %+v", large)
	for _, d := range databases(t) {
		t.Run(d.name, func(t *testing.T) {
			url := d.url(t)
			if file := os.Getenv("POSTERN_LARGE"); file != "" && !store.IsPostgres(url) {
				url = file
			}
			db := storetest.OpenConfig(t, store.Config{URL: url})
			if n, err := db.Timeline().LogSize(t.Context()); err != nil || n == 1 {
				must(t, err)
				start := time.Now()
				storetest.Fill(t, db, large)
				t.Logf("filled in %v", time.Since(start))
			}
			bytes, err := db.Bytes(t.Context())
			must(t, err)
			entries, err := db.Timeline().LogSize(t.Context())
			must(t, err)
			t.Logf("%d entries, %d bytes with all else", entries, bytes)
			bytesOnDisk(t, db, entries)
			firstPages(t, db)
			otherPages(t, db)
			readsAll(t, db)
			if !store.IsPostgres(url) {
				verifiesSome(t, db, journalOfVerify(t, db, url))
			}
		})
	}
}

// pages are filters whose first page is measured.
func pages(now time.Time) map[string]timeline.Filter {
	middle := now.Add(-storetest.Span / 2)
	return map[string]timeline.Filter{
		"none":                     {},
		"person, much":             {Person: "person0001"},
		"person, little":           {Person: "person9900"},
		"person, none":             {Person: "eve"},
		"address, much":            {Address: "192.0.0.1"},
		"address, none":            {Address: "203.0.113.9"},
		"network, much":            {Address: "192.0.0.0/16"},
		"network, little":          {Address: "198.18.7.0/24"},
		"network, none":            {Address: "203.0.113.0/24"},
		"object":                   {Object: "/reports/77"},
		"object, none":             {Object: "/none"},
		"objects, much":            {Object: "/reports/*"},
		"objects, little":          {Object: "/reports/77*"},
		"kind, much":               {Kind: postern.EventSignedIn},
		"kind, once":               {Kind: postern.EventLogCreated},
		"kinds":                    {Kind: "ssh"},
		"kind, none":               {Kind: postern.EventPAMClosed},
		"outcome, much":            {Outcome: postern.Refused},
		"outcome, none":            {Outcome: postern.Unknown},
		"since":                    {Since: middle},
		"since, none":              {Since: now.Add(time.Hour)},
		"until":                    {Until: middle},
		"until, none":              {Until: now.Add(-2 * storetest.Span)},
		"host":                     {Host: "hv7"},
		"host, none":               {Host: "hv999"},
		"link":                     {Link: postern.Link{Kind: "x509", ID: fmt.Sprintf("%032x", 1<<40)}},
		"link, none":               {Link: postern.Link{Kind: "x509", ID: "none"}},
		"person since":             {Person: "person0001", Since: middle},
		"refused from one network": {Outcome: postern.Refused, Address: "198.18.0.0/16"},
	}
}

func firstPages(t *testing.T, db *store.DB) {
	filters := pages(db.Now())
	for _, name := range slices.Sorted(maps.Keys(filters)) {
		for _, last := range []bool{true, false} {
			f := filters[name]
			f.Limit, f.Last = 100, last
			var took []time.Duration
			var found int
			for range 3 {
				start := time.Now()
				events, err := db.Timeline().Events(t.Context(), f)
				must(t, err)
				took, found = append(took, time.Since(start)), len(events)
			}
			t.Logf("%-26s last %-5v %4d entries, first %8v, then %8v", name, last, found,
				took[0].Round(10*time.Microsecond), slices.MinFunc(took, cmp.Compare).Round(10*time.Microsecond))
		}
	}
}

// otherPages measures the first page, and one in the middle, of the other lists.
func otherPages(t *testing.T, db *store.DB) {
	keys := db.OTP()
	var middle struct{ key, serial string }
	middle.key = otp.EncodeModhex([]byte{0xfe, 0, 0, 7, 0, 0})
	middle.serial = fmt.Sprintf("%032x", 1<<40+50_000)
	for _, list := range []struct {
		name string
		page func() (int, error)
	}{
		{"keys", func() (int, error) {
			page, err := keys.Credentials(t.Context(), store.Page{Limit: 100})
			return len(page), err
		}},
		{"keys, in the middle", func() (int, error) {
			page, err := keys.Credentials(t.Context(), store.Page{After: middle.key, Limit: 100})
			return len(page), err
		}},
		{"keys of a person", func() (int, error) {
			page, err := keys.Credentials(t.Context(), store.Page{Person: "person0001", Limit: 100})
			return len(page), err
		}},
		{"certificates", func() (int, error) {
			page, err := db.CA().Certificates(t.Context(), ca.Filter{Leaves: true, Limit: 100})
			return len(page), err
		}},
		{"certificates, middle", func() (int, error) {
			page, err := db.CA().Certificates(t.Context(), ca.Filter{After: middle.serial, Limit: 100})
			return len(page), err
		}},
		{"people", func() (int, error) {
			page, err := db.People().Page(t.Context(), "", 100)
			return len(page), err
		}},
		{"people, in the middle", func() (int, error) {
			page, err := db.People().Page(t.Context(), "person5000", 100)
			return len(page), err
		}},
	} {
		start := time.Now()
		n, err := list.page()
		must(t, err)
		t.Logf("%-26s %4d rows, %8v", list.name, n, time.Since(start).Round(10*time.Microsecond))
	}
}

// bytesOnDisk measures the tables of the timeline, with their indices.
func bytesOnDisk(t *testing.T, db *store.DB, entries int64) {
	query := `SELECT d.name, SUM(d.pgsize) FROM dbstat d JOIN sqlite_master m ON m.name = d.name
		WHERE m.tbl_name LIKE 'log\_%' ESCAPE '\' GROUP BY d.name`
	if db.Shared() {
		query = `SELECT relname, pg_relation_size(oid) + COALESCE(pg_total_relation_size(NULLIF(reltoastrelid, 0)), 0)
			FROM pg_class WHERE relname LIKE 'log\_%'`
	}
	var sum int64
	must(t, db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		sum = 0
		rows, err := tx.Query(ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			var bytes int64
			if err := rows.Scan(&name, &bytes); err != nil {
				return err
			}
			t.Logf("%-26s %5.1f bytes an entry", name, float64(bytes)/float64(entries))
			sum += bytes
		}
		return rows.Err()
	}))
	t.Logf("%-26s %5.1f bytes an entry", "the timeline", float64(sum)/float64(entries))
}

// readsAll reads the whole timeline as a list or an export does.
func readsAll(t *testing.T, db *store.DB) {
	var stats runtime.MemStats
	var most uint64
	start, n, pages := time.Now(), 0, 0
	must(t, timeline.Each(t.Context(), db.Timeline(), timeline.Filter{}, func(events []postern.Event) error {
		if pages++; pages%100 == 1 {
			runtime.ReadMemStats(&stats)
			most = max(most, stats.HeapInuse)
		}
		n += len(events)
		return nil
	}))
	t.Logf("%d entries read in %v, with at most %d MB of memory in use", n, time.Since(start), most>>20)
}

// verifiesSome verifies what was appended since a checkpoint, as the doctor does.
func verifiesSome(t *testing.T, db *store.DB, checkpoint string) {
	e := postern.Event{Kind: postern.EventSignedIn, Object: strings.Repeat("x", 100)}
	must(t, db.Append(t.Context(), slices.Repeat([]postern.Event{e}, 5000)...))
	start := time.Now()
	r, err := db.Timeline().VerifyLogSince(t.Context(), checkpoint)
	must(t, err)
	if len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
	t.Logf("%d further entries verified in %v", r.Size-r.From, time.Since(start))
}

// journalOfVerify verifies while entries are appended, and returns the checkpoint.
func journalOfVerify(t *testing.T, db *store.DB, path string) string {
	done := make(chan struct{})
	var longest int64
	var wg sync.WaitGroup
	appended := 0
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			e := postern.Event{Kind: postern.EventSignedIn, Object: strings.Repeat("x", 100)}
			events := slices.Repeat([]postern.Event{e}, 50)
			if err := db.Append(t.Context(), events...); err != nil {
				t.Error(err)
				return
			}
			appended += len(events)
			if info, err := os.Stat(path + "-wal"); err == nil {
				longest = max(longest, info.Size())
			}
		}
	})
	start := time.Now()
	r := verify(t, db)
	took := time.Since(start)
	close(done)
	wg.Wait()
	if len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
	t.Logf("%s verified in %v while %d entries were appended: the journal grew to %d bytes",
		filepath.Base(path), took, appended, longest)
	return r.Checkpoint
}
