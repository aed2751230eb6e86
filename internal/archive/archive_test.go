package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/archive"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// size is how many entries the timeline of a test has, archived how many can be moved.
const size, archived = 700, 512

// logOf returns a store whose timeline has so many entries, each a minute after the one
// before, with links.
func logOf(t testing.TB) *store.DB {
	t.Helper()
	events := make([]postern.Event, size-1)
	for i := range events {
		events[i] = postern.Event{
			Kind: postern.EventSignedIn, Person: fmt.Sprintf("person%d", i%3), Object: fmt.Sprintf("/%d", i),
			Time:  time.Date(2026, 1, 1, 0, i, 0, 0, time.UTC),
			Links: []postern.Link{{Kind: postern.LinkSession, ID: fmt.Sprint(i / 4)}},
		}
	}
	return logWith(t, events)
}

// logWith returns a store with these entries.
func logWith(t testing.TB, events []postern.Event) *store.DB {
	t.Helper()
	db := storetest.Open(t)
	must(t, db.Append(t.Context(), events...))
	return db
}

// verified fails unless the timeline is as it was written.
func verified(t testing.TB, db *store.DB, missing bool) {
	t.Helper()
	r, err := db.Timeline().VerifyLog(t.Context())
	must(t, err)
	if len(r.Problems) > 0 || r.Missing != missing {
		t.Errorf("%+v", r)
	}
}

func openDir(t testing.TB, dir string) *archive.Dir {
	t.Helper()
	d, err := archive.Open(dir)
	must(t, err)
	return d
}

func TestATimelineGoesOnWithItsArchiveAndWithoutIt(t *testing.T) {
	db, dir := logOf(t), filepath.Join(t.TempDir(), "archive")
	log := db.Timeline()
	all, err := log.Events(t.Context(), timeline.Filter{})
	must(t, err)
	early, err := log.ProveEvent(t.Context(), 200)
	must(t, err)
	before, err := log.VerifyLog(t.Context())
	must(t, err)

	if n, err := archive.Run(t.Context(), log, dir, 300); err != nil || n != 256 {
		t.Fatalf("%d %v", n, err)
	}
	at, err := archive.Size(t.Context(), log, "x", func(string) (time.Time, error) { return all[600].Time, nil })
	if err != nil || at != 600 {
		t.Fatalf("%d entries are before that time: %v", at, err)
	}
	if n, err := archive.Run(t.Context(), log, dir, at); err != nil || n != archived {
		t.Fatalf("%d %v", n, err)
	}
	if rows := storetest.Rows(t, db); rows["log_events"] != size+2-archived || rows["log_links"] != size-archived ||
		rows["log_blocks"] != size/256-archived/256 {
		t.Errorf("the database has %d entries, %d links, %d blocks", rows["log_events"], rows["log_links"],
			rows["log_blocks"])
	}

	// Without the archive.
	log = db.Timeline()
	verified(t, db, true)
	if r, err := log.VerifyLog(t.Context(), before.Checkpoint); err != nil || len(r.Problems) > 0 {
		t.Errorf("against a checkpoint of before: %+v %v", r, err)
	}
	if r, err := log.VerifyLogSince(t.Context(), before.Checkpoint); err != nil || len(r.Problems) > 0 {
		t.Errorf("since a checkpoint of before: %+v %v", r, err)
	}
	if _, err := log.ProveEvent(t.Context(), 200); postern.CodeOf(err) != postern.NotFound ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("prove an entry that is not here: %v", err)
	}
	if p, err := log.ProveEvent(t.Context(), 650); err != nil || p.Index != 650 {
		t.Errorf("%v", err)
	}
	v, err := note.NewVerifier(log.LogVerifier())
	must(t, err)
	if _, _, err := early.Check(v); err != nil {
		t.Errorf("a proof of before: %v", err)
	}
	must(t, db.Append(t.Context(), postern.Event{Kind: postern.EventSignedIn, Object: "later"}))

	// With it.
	must(t, archive.Use(t.Context(), db, ""))
	log = db.Timeline()
	verified(t, db, false)
	if p, err := log.ProveEvent(t.Context(), 200); err != nil || p.Entry != early.Entry {
		t.Errorf("%v", err)
	}
	later, err := log.Recent().Events(t.Context(), timeline.Filter{From: size})
	must(t, err)
	for _, f := range []timeline.Filter{
		{},
		{Limit: 10},
		{Limit: 10, Last: true},
		{Limit: 600, Last: true},
		{Limit: 600},
		{From: 505, Limit: 10},
		{Person: "person1"},
		{Person: "person1", Limit: 200, Last: true},
		{From: 600},
		{Link: postern.Link{Kind: postern.LinkSession, ID: "10"}},
	} {
		got, err := log.Events(t.Context(), f)
		must(t, err)
		if want := selected(append(slices.Clone(all), later...), f); !slices.EqualFunc(got, want, sameIndex) {
			t.Errorf("%+v: %d entries, not %d", f, len(got), len(want))
		}
	}
	if _, joined, err := timeline.JoinAt(t.Context(), log, 41); err != nil || len(joined) != 4 {
		t.Errorf("%d entries belong to one in the archive: %v", len(joined), err)
	}
}

// selected returns what a filter selects.
func selected(all []postern.Event, f timeline.Filter) (events []postern.Event) {
	for _, e := range all {
		if f.Match(e) {
			events = append(events, e)
		}
	}
	switch n := len(events) - f.Limit; {
	case f.Limit == 0 || n <= 0:
		return events
	case f.Last:
		return events[n:]
	}
	return events[:f.Limit]
}

func sameIndex(a, b postern.Event) bool { return a.Index == b.Index && a.Object == b.Object }

// TestAChangedByteIsFoundAndNamed changes a byte of each kind of file.
func TestAChangedByteIsFoundAndNamed(t *testing.T) {
	db, dir := logOf(t), t.TempDir()
	if _, err := archive.Run(t.Context(), db.Timeline(), dir, archived); err != nil {
		t.Fatal(err)
	}
	db.UseArchive(openDir(t, dir))
	for file, want := range map[string]string{
		"tile/entries/001.zst": "tile/entries/001.zst", "tile/0/001": "tile/0/001: not the hash of entry 256",
	} {
		path := filepath.Join(dir, file)
		text, err := os.ReadFile(path)
		must(t, err)
		for _, at := range []int{0, len(text) / 2, len(text) - 1} {
			changed := slices.Clone(text)
			changed[at] ^= 1
			must(t, os.WriteFile(path, changed, 0o600))
			r, err := db.Timeline().VerifyLog(t.Context())
			must(t, err)
			if len(r.Problems) == 0 || at == 0 && !strings.Contains(r.Problems[0].String(), want) {
				t.Errorf("byte %d of %s was changed: %v", at, file, r.Problems)
			}
		}
		must(t, os.Remove(path))
		if r, err := db.Timeline().VerifyLog(t.Context()); err == nil && len(r.Problems) == 0 {
			t.Errorf("%s was removed: %+v", file, r)
		}
		must(t, os.WriteFile(path, text, 0o600))
	}
	verified(t, db, false)
}

// interrupted fails at a call, as if the process had ended there.
type interrupted struct {
	archive.Log
	left int
}

var errEnded = errors.New("ended")

func (l *interrupted) end() error {
	if l.left--; l.left < 0 {
		return errEnded
	}
	return nil
}

func (l *interrupted) ReadLog(ctx context.Context, f func(context.Context, timeline.Archive) error) error {
	return errors.Join(l.Log.ReadLog(ctx, f), l.end()) // what was written is there
}

func (l *interrupted) SignFirst(ctx context.Context, n int64) (string, error) {
	if err := l.end(); err != nil {
		return "", err
	}
	return l.Log.SignFirst(ctx, n)
}

func (l *interrupted) KeepArchived(ctx context.Context, was, to timeline.Archived, e postern.Event) error {
	if err := l.end(); err != nil {
		return err
	}
	return errors.Join(l.Log.KeepArchived(ctx, was, to, e), l.end())
}

func (l *interrupted) RemoveArchived(ctx context.Context) (bool, error) {
	if err := l.end(); err != nil {
		return false, err
	}
	return l.Log.RemoveArchived(ctx)
}

// TestWhatWasInterruptedIsFinished ends a run after each of its steps.
func TestWhatWasInterruptedIsFinished(t *testing.T) {
	for steps := 0; ; steps++ {
		db, dir := logOf(t), t.TempDir()
		_, err := archive.Run(t.Context(), &interrupted{db.Timeline(), steps}, dir, archived)
		if err == nil {
			if steps < 6 {
				t.Errorf("a run has %d steps", steps)
			}
			return
		}
		if !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
		db.UseArchive(openDir(t, dir))
		verified(t, db, false)
		db.UseArchive(nil)
		if n, err := archive.Run(t.Context(), db.Timeline(), dir, archived); err != nil || n != archived {
			t.Errorf("after %d steps: %d, %v", steps, n, err)
		}
		verified(t, db, true)
		db.UseArchive(openDir(t, dir))
		verified(t, db, false)
		if events, err := db.Timeline().Events(t.Context(), timeline.Filter{}); err != nil || len(events) != size+1 {
			t.Errorf("after %d steps: %d entries, %v", steps, len(events), err)
		}
	}
}

// TestNothingIsRemovedThatFilesHaveNoMore ends a run before entries are taken out of the database, loses or
// changes one of the files, and runs again.
func TestNothingIsRemovedThatFilesHaveNoMore(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"lost": os.Remove, "changed": func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
	} {
		db, dir := logOf(t), filepath.Join(t.TempDir(), "a", "b")
		_, err := archive.Run(t.Context(), notRemoved{db.Timeline()}, dir, archived)
		if !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
		before := storetest.Rows(t, db)["log_events"]
		must(t, harm(filepath.Join(dir, "tile/entries/001.zst")))
		if _, err := archive.Run(t.Context(), db.Timeline(), dir, archived); err == nil {
			t.Errorf("a file is %s, and the run goes on", name)
		}
		if now := storetest.Rows(t, db)["log_events"]; now != before {
			t.Errorf("a file is %s, and %d entries of %d are left", name, now, before)
		}
	}
}

// notRemoved ends a run before it takes entries out of the database.
type notRemoved struct{ archive.Log }

func (l notRemoved) RemoveArchived(ctx context.Context) (bool, error) {
	if a, err := l.Archived(ctx); err != nil || a.Size == a.Removed {
		return true, err
	}
	return false, errEnded
}

func TestTwoRunsAtOnceAndOtherArchivesAreRefused(t *testing.T) {
	db, dir := logOf(t), t.TempDir()
	during := &meanwhile{Log: db.Timeline(), do: func() {
		if _, err := archive.Run(t.Context(), db.Timeline(), dir, 256); postern.CodeOf(err) != postern.Conflict {
			t.Errorf("a second run in one directory: %v", err)
		}
		if _, err := archive.Run(t.Context(), db.Timeline(), t.TempDir(), 256); err != nil {
			t.Error(err)
		}
	}}
	if _, err := archive.Run(t.Context(), during, dir, archived); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a run while another one went on: %v", err)
	}
	if _, err := archive.Run(t.Context(), db.Timeline(), t.TempDir(),
		archived); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("an archive that does not begin where the timeline does: %v", err)
	}
	other := logOf(t)
	if _, err := archive.Run(t.Context(), other.Timeline(), dir, archived); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("the archive of another timeline: %v", err)
	}
}

// TestAVerificationWhileEntriesAreMovedFindsNothing moves further entries once the first ones were verified.
func TestAVerificationWhileEntriesAreMovedFindsNothing(t *testing.T) {
	db, dir := logOf(t), t.TempDir()
	if _, err := archive.Run(t.Context(), db.Timeline(), dir, 256); err != nil {
		t.Fatal(err)
	}
	moved := int64(0)
	db.UseArchive(&moving{openDir(t, dir), func() {
		if moved > 0 {
			return
		}
		var err error
		if moved, err = archive.Run(t.Context(), db.Timeline(), dir, archived); err != nil {
			t.Error(err)
		}
	}})
	r, err := db.Timeline().VerifyLog(t.Context())
	if err != nil || len(r.Problems) > 0 || r.Archived != archived || moved != archived {
		t.Errorf("%d entries were moved: %+v, %v", moved, r, err)
	}
}

// moving does something once entries were read.
type moving struct {
	timeline.Files
	do func()
}

func (m *moving) Entries(ctx context.Context, from, to int64, f func(timeline.Entry) error) error {
	err := m.Files.Entries(ctx, from, to, f)
	m.do()
	return err
}

// meanwhile does something before what is in files is recorded.
type meanwhile struct {
	archive.Log
	do func()
}

func (m *meanwhile) KeepArchived(ctx context.Context, was, to timeline.Archived, e postern.Event) error {
	m.do()
	return m.Log.KeepArchived(ctx, was, to, e)
}
