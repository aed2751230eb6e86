package archive_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/archive"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
)

// fileStore opens a database in a file.
func fileStore(t *testing.T, path string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: path, Key: storetest.Key})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func signedIn(t *testing.T, db *store.DB, object string, n int) {
	t.Helper()
	events := make([]postern.Event, n)
	for i := range events {
		events[i] = postern.Event{Kind: postern.EventSignedIn, Object: object}
	}
	must(t, db.Append(t.Context(), events...))
}

// TestAnOlderDatabaseBesideANewerArchive restores a database from before the newest archive, and goes on
// with it: what the archive has behind that is of another history, and is neither read nor written over.
func TestAnOlderDatabaseBesideANewerArchive(t *testing.T) {
	tmp := t.TempDir()
	dir, path, copied := filepath.Join(tmp, "archive"), filepath.Join(tmp, "a.db"), filepath.Join(tmp, "b.db")
	db := fileStore(t, path)
	signedIn(t, db, "before", 300)
	if n, err := archive.Run(t.Context(), db.Timeline(), dir, 256); err != nil || n != 256 {
		t.Fatal(n, err)
	}
	must(t, db.Close())
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(copied, text, 0o600))

	db = fileStore(t, path)
	signedIn(t, db, "lost", 300)
	if n, err := archive.Run(t.Context(), db.Timeline(), dir, archived); err != nil || n != archived {
		t.Fatal(n, err)
	}
	kept, err := os.ReadFile(filepath.Join(dir, "tile/entries/001.zst"))
	must(t, err)

	for _, more := range []int{0, 300} {
		restored := fileStore(t, copied)
		signedIn(t, restored, "after", more)
		if _, err := archive.Run(t.Context(), restored.Timeline(), dir, archived); postern.CodeOf(err) !=
			postern.Conflict {
			t.Errorf("%d entries later: the archive of the lost entries is continued: %v", more, err)
		}
		must(t, archive.Use(t.Context(), restored, dir))
		verified(t, restored, false)
		events, err := restored.Timeline().Events(t.Context(), timeline.Filter{Object: "lost"})
		if err != nil || len(events) > 0 {
			t.Errorf("%d lost entries are read, %v", len(events), err)
		}
		must(t, restored.Close())
	}
	if now, err := os.ReadFile(filepath.Join(dir, "tile/entries/001.zst")); err != nil || string(now) != string(kept) {
		t.Errorf("the archive was written over: %v", err)
	}
}

// TestAnArchiveIsReadByItsOwnerAlone looks at the modes of all that a run writes.
func TestAnArchiveIsReadByItsOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if _, err := archive.Run(t.Context(), logOf(t).Timeline(), dir, archived); err != nil {
		t.Fatal(err)
	}
	must(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return err
	}))
}
