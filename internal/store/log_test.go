package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// fill appends n events of several people, some with links.
func fill(t testing.TB, db *store.DB, n int) {
	t.Helper()
	events := make([]postern.Event, n)
	for i := range events {
		events[i] = postern.Event{
			Kind:    []string{postern.EventAccessRefused, postern.EventSignedIn}[i%2],
			Outcome: []postern.Outcome{postern.Refused, postern.OK}[i%2],
			Person:  fmt.Sprintf("person%d", i%3), Address: fmt.Sprintf("192.0.2.%d", i%7),
			Object: fmt.Sprintf("/a/%d", i),
			Time:   time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC),
		}
		if i%40 == 39 { // another host's, which comes an hour late
			events[i].Host, events[i].Time = fmt.Sprintf("hv%d", i%200), events[i].Time.Add(-time.Hour)
		}
		if i%5 == 0 {
			events[i].Links = []postern.Link{
				{Kind: "x509", ID: fmt.Sprint(i % 10)}, {Kind: postern.LinkSession, ID: fmt.Sprint(i)},
			}
		}
	}
	must(t, db.Append(t.Context(), events...))
}

func asked(t *testing.T, open opener) {
	db := open(t)
	for _, n := range []int{40, 300, 1, 600} {
		fill(t, db, n)
	}
	must(t, db.Append(t.Context(), postern.Event{Kind: postern.EventPAMClosed, Object: "/a/7", Address: "2001:db8::7"}))
	all, err := db.Timeline().Events(t.Context(), timeline.Filter{})
	must(t, err)
	if len(all) != 943 || all[0].Kind != postern.EventLogCreated {
		t.Fatalf("%d events, the first %s", len(all), all[0].Kind)
	}
	for _, f := range []timeline.Filter{
		{Person: "person1"},
		{Kind: "gate"},
		{Kind: postern.EventAccessRefused},
		{Kind: "gat"},
		{Outcome: postern.Refused, Person: "person2"},
		{Address: "192.0.2.3"},
		{Address: "192.0.2.0/30"},
		{Object: "/a/7"},
		{Object: "/a/1*"},
		{Link: postern.Link{Kind: "x509", ID: "5"}},
		{
			Link: postern.Link{Kind: "x509", ID: "5"}, Address: "192.0.2.1", Object: "/a/15", Person: "person0",
			Outcome: postern.OK,
		},
		{Since: time.Date(2026, 1, 1, 0, 10, 0, 0, time.UTC), Until: time.Date(2026, 1, 1, 0, 20, 0, 0, time.UTC)},
		{Since: time.Date(2026, 1, 1, 5, 10, 0, 0, time.UTC), Person: "person1"},
		{Since: time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC)},
		{Before: 300},
		{Before: 512, From: 100, Kind: "gate"},
		{Before: 600, Person: "person1"},
		{Before: 700, Since: time.Date(2026, 1, 1, 0, 10, 0, 0, time.UTC), Outcome: postern.Refused},
		{Before: 943, Link: postern.Link{Kind: "x509", ID: "5"}},
		{Before: 1, Object: "/a/1*"},
		{Until: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)},
		{Until: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), Object: "/a/7"},
		{Host: "hv39"},
		{Host: "hv39", Kind: "gate", Outcome: postern.OK},
		{Kind: "pam"},
		{Kind: "log.created"},
		{Address: "2001:db8::/32"},
		{Address: "2001:db8::/33", Object: "/a/*"},
		{Address: "192.0.0.0/21"},
		{Object: "*"},
		{Object: "/a/7", Link: postern.Link{Kind: "x509", ID: "5"}},
		{From: 30},
		{From: 700, Kind: "gate", Host: "hv159"},
		{Person: "person1' OR 1=1 --"},
	} {
		var want []int64
		for _, e := range all {
			if f.Match(e) {
				want = append(want, e.Index)
			}
		}
		var each []int64
		must(t, timeline.Each(t.Context(), db.Timeline(), f, func(events []postern.Event) error {
			each = append(each, indexes(events)...)
			return nil
		}))
		if !slices.Equal(each, want) {
			t.Errorf("%+v gives %v page by page, not %v", f, each, want)
		}
		for _, limit := range []int{0, 1, 3, 100} {
			for _, last := range []bool{false, true} {
				f.Limit, f.Last = limit, last
				got, err := db.Timeline().Events(t.Context(), f)
				must(t, err)
				if w := cut(want, limit, last); !slices.Equal(indexes(got), w) {
					t.Errorf("%+v gives %v, not %v", f, indexes(got), w)
				}
			}
		}
	}
}

func cut(want []int64, limit int, last bool) []int64 {
	switch {
	case limit == 0 || len(want) <= limit:
		return want
	case last:
		return want[len(want)-limit:]
	}
	return want[:limit]
}

func indexes(events []postern.Event) []int64 {
	var list []int64
	for _, e := range events {
		list = append(list, e.Index)
	}
	return list
}

func verify(t testing.TB, db *store.DB, earlier ...string) timeline.Report {
	t.Helper()
	r, err := db.Timeline().VerifyLog(t.Context(), earlier...)
	must(t, err)
	return r
}

func provesEveryLine(t *testing.T, open opener) {
	db := open(t)
	var checkpoints []string
	for range 5 {
		fill(t, db, 33)
		r := verify(t, db, checkpoints...)
		if len(r.Problems) > 0 {
			t.Fatalf("problems: %v", r.Problems)
		}
		checkpoints = append(checkpoints, r.Checkpoint)
	}
	for i := range int64(1 + 5*33) {
		p, err := db.Timeline().ProveEvent(t.Context(), i)
		must(t, err)
		text, err := json.Marshal(p)
		must(t, err)
		checked, err := timeline.CheckProof(text, db.Timeline().LogVerifier())
		must(t, err)
		if checked.Event.Index != i || checked.Checkpoint.Size != 1+5*33 {
			t.Errorf("the proof of %d is of %d in %d", i, checked.Event.Index, checked.Checkpoint.Size)
		}
	}
	if _, err := db.Timeline().ProveEvent(t.Context(), 1+5*33); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("prove an entry that is not there: %v", err)
	}
	if _, err := timeline.CheckProof([]byte("{}"), "no key"); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("a proof is checked by no key: %v", err)
	}
}

// tamper changes the database behind the store's back.
func tamper(t testing.TB, db *store.DB, statements ...string) {
	t.Helper()
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		for _, s := range statements {
			if n, err := tx.Exec(ctx, s); err != nil || n == 0 {
				return fmt.Errorf("%s: %d rows, %w", s, n, err)
			}
		}
		return nil
	}))
}

func tamperingShows(t *testing.T, open opener) {
	db := open(t)
	fill(t, db, 300)
	swap := []string{
		`UPDATE log_events SET idx = 1000 WHERE idx = 20`, `UPDATE log_events SET idx = 20 WHERE idx = 21`,
		`UPDATE log_events SET idx = 21 WHERE idx = 1000`,
	}
	for _, c := range []struct {
		do, undo []string
		want     string
	}{
		{
			[]string{`UPDATE log_events SET address = '192.0.2.5' WHERE idx = 12`},
			[]string{`UPDATE log_events SET address = '192.0.2.4' WHERE idx = 12`},
			"entry 12: not the entry that was written",
		},
		{
			[]string{`UPDATE log_events SET person = 'eve' WHERE idx = 13`},
			[]string{`UPDATE log_events SET person = 'person0' WHERE idx = 13`},
			"entry 13: not the entry that was written",
		},
		{
			[]string{`UPDATE log_events SET time = time + 1 WHERE idx = 14`},
			[]string{`UPDATE log_events SET time = time - 1 WHERE idx = 14`},
			"entry 14: not the entry that was written",
		},
		{ // the same text, but nobody finds its address
			[]string{`UPDATE log_events SET person = person || '","address":"' || address, address = ''
				WHERE idx = 12`},
			[]string{`UPDATE log_events SET person = REPLACE(person, '","address":"192.0.2.4', ''),
				address = '192.0.2.4' WHERE idx = 12`},
			"entry 12: the columns that are searched",
		},
		{
			[]string{`UPDATE log_events SET idx = 1000 WHERE idx = 50`},
			[]string{`UPDATE log_events SET idx = 50 WHERE idx = 1000`},
			"entry 50: missing",
		},
		{
			[]string{`UPDATE log_events SET idx = 1000 WHERE idx = 300`},
			[]string{`UPDATE log_events SET idx = 300 WHERE idx = 1000`},
			"entry 300: missing",
		},
		{
			[]string{`UPDATE log_events SET idx = -1 WHERE idx = 300`},
			[]string{`UPDATE log_events SET idx = 300 WHERE idx = -1`},
			"out of place",
		},
		{
			swap, swap, "entry 20: not the entry that was written",
		},
		{
			[]string{`UPDATE log_links SET id = '999' WHERE kind = 'session' AND id = '30'`},
			[]string{`UPDATE log_links SET id = '30' WHERE kind = 'session' AND id = '999'`},
			"the links",
		},
		{
			[]string{`UPDATE log_state SET size = 300`},
			[]string{`UPDATE log_state SET size = 301`},
			"the size that is kept is 300",
		},
		{
			[]string{"UPDATE log_state SET checkpoint = REPLACE(checkpoint, '\n301\n', '\n300\n')"},
			[]string{"UPDATE log_state SET checkpoint = REPLACE(checkpoint, '\n300\n', '\n301\n')"},
			"checkpoint: ",
		},
		{
			[]string{`UPDATE log_tiles SET n = 7 WHERE level = 0 AND n = 0`},
			[]string{`UPDATE log_tiles SET n = 0 WHERE level = 0 AND n = 7`},
			"the hashes of tile 0/0",
		},
		{
			[]string{`UPDATE log_terms SET block = 7 WHERE term = 'outcome refused' AND block = 0`},
			[]string{`UPDATE log_terms SET block = 0 WHERE term = 'outcome refused' AND block = 7`},
			"entries 0 to 255 are not found by what they say",
		},
		{
			[]string{`UPDATE log_blocks SET latest = latest - 1`},
			[]string{`UPDATE log_blocks SET latest = latest + 1`},
			"entries 0 to 255 are not found by what they say",
		},
	} {
		tamper(t, db, c.do...)
		r := verify(t, db)
		wanted := func(p timeline.Problem) bool { return strings.HasPrefix(p.String(), c.want) }
		if !slices.ContainsFunc(r.Problems, wanted) {
			t.Errorf("%v: problems are %v", c.do, r.Problems)
		}
		tamper(t, db, c.undo...)
		if r := verify(t, db); len(r.Problems) > 0 {
			t.Fatalf("%v undone: %v", c.do, r.Problems)
		}
	}
	// What is cut off at the end, with its links, tiles and size.
	tamper(t, db, `DELETE FROM log_events WHERE idx > 90`, `DELETE FROM log_links WHERE idx > 90`,
		`UPDATE log_state SET size = 91`)
	if r := verify(t, db); len(r.Problems) == 0 {
		t.Error("ten entries cut off, and nothing said")
	}
}

func notSignedAgain(t *testing.T, open opener) {
	db := open(t)
	fill(t, db, 10)
	tamper(t, db, `UPDATE log_state SET edge = (SELECT sealed FROM keys WHERE name = 'log')`)
	other := open(t) // has no tree of its own yet
	if err := other.Append(t.Context(), postern.Event{Kind: "test"}); err == nil {
		t.Error("an entry was appended to a tree that was tampered with")
	}
	tamper(t, db, `DELETE FROM log_state`)
	if err := db.Append(t.Context(), postern.Event{Kind: "test"}); err == nil {
		t.Error("a log without its checkpoint was begun anew")
	}
}

func writtenAnew(t *testing.T, open opener) {
	db := open(t)
	fill(t, db, 70)
	saved := verify(t, db).Checkpoint
	fill(t, db, 10)
	if r := verify(t, db, saved); len(r.Problems) > 0 {
		t.Fatalf("problems: %v", r.Problems)
	}
	// An attacker with the log's key and the program writes another history. The
	// store's own function to begin a log does it once all but the key is deleted.
	anew := func(entries int) {
		tamper(t, db, `DELETE FROM log_events`, `DELETE FROM log_links`, `DELETE FROM log_tiles`,
			`DELETE FROM log_state`)
		must(t, db.BeginLogAgain(t.Context()))
		fill(t, db, entries)
		if r := verify(t, db); len(r.Problems) > 0 {
			t.Fatalf("the new history is not whole: %v", r.Problems)
		}
	}
	anew(90)
	if r := verify(t, db, saved); !slices.ContainsFunc(r.Problems, func(p timeline.Problem) bool {
		return strings.Contains(p.What, "its first 71 entries are not those")
	}) {
		t.Errorf("problems: %v", r.Problems)
	}
	anew(5)
	if r := verify(t, db, saved); !slices.ContainsFunc(r.Problems, func(p timeline.Problem) bool {
		return strings.Contains(p.What, "signed 71 entries, and only 6 are there")
	}) {
		t.Errorf("problems: %v", r.Problems)
	}
}

// verifiedSince verifies a growing log from each of its checkpoints on, and then one that
// was tampered with.
func verifiedSince(t *testing.T, open opener) {
	db := open(t)
	var earlier []string
	since := func(checkpoint string) timeline.Report {
		t.Helper()
		r, err := db.Timeline().VerifyLogSince(t.Context(), checkpoint)
		must(t, err)
		return r
	}
	for _, more := range []int{1, 30, 70, 64, 20} {
		whole := verify(t, db)
		earlier = append(earlier, whole.Checkpoint)
		for _, checkpoint := range earlier {
			r := since(checkpoint)
			if len(r.Problems) > 0 || r.Size != whole.Size || r.From <= 0 || r.Checkpoint != whole.Checkpoint {
				t.Fatalf("of %d entries: %+v", whole.Size, r)
			}
		}
		fill(t, db, more)
	}
	middle := earlier[len(earlier)/2]
	size := since(middle).From
	for _, c := range []struct {
		what string
		at   int64
		seen bool
	}{{"an entry that came since", size, true}, {"one that was verified", size - 1, false}} {
		tamper(t, db, fmt.Sprintf(`UPDATE log_events SET object = object || 's' WHERE idx = %d`, c.at))
		if seen := len(since(middle).Problems) > 0; seen != c.seen {
			t.Errorf("%s was changed, and that shows: %v", c.what, seen)
		}
		if len(verify(t, db).Problems) == 0 {
			t.Errorf("%s was changed, and the whole verifies", c.what)
		}
		tamper(t, db, fmt.Sprintf(`UPDATE log_events SET object = REPLACE(object, 's', '') WHERE idx = %d`, c.at))
	}
	if r := since(middle); len(r.Problems) > 0 {
		t.Fatal(r.Problems)
	}
	// The hashes of what was verified are not those any more: all is verified, which says so.
	tamper(t, db, `DELETE FROM log_tiles WHERE level = 0 AND n = 0`)
	if r := since(earlier[1]); r.From != 0 || len(r.Problems) == 0 {
		t.Errorf("a tile is missing: %+v", r)
	}
}
