package archive_test

import (
	"os"
	"path/filepath"
	"slices"
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

// restoredBesideNewer makes a database at path and its archive, archives more, and opens the database as it was
// before that, with 300 entries of which 256 are archived: its copy at path with .restored.
func restoredBesideNewer(t *testing.T, path, dir string) *store.DB {
	t.Helper()
	db := fileStore(t, path)
	signedIn(t, db, "before", 300)
	if n, err := archive.Run(t.Context(), db.Timeline(), dir, 256); err != nil || n != 256 {
		t.Fatal(n, err)
	}
	must(t, db.Close())
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path+".restored", text, 0o600))

	db = fileStore(t, path)
	signedIn(t, db, "lost", 300)
	if n, err := archive.Run(t.Context(), db.Timeline(), dir, archived); err != nil || n != archived {
		t.Fatal(n, err)
	}
	must(t, db.Close())
	return fileStore(t, path+".restored")
}

// TestAnOlderDatabaseBesideANewerArchive restores a database from before the newest archive, and goes on
// with it: what the archive has behind that is of another history, and is neither read nor written over.
func TestAnOlderDatabaseBesideANewerArchive(t *testing.T) {
	tmp := t.TempDir()
	dir, path := filepath.Join(tmp, "archive"), filepath.Join(tmp, "a.db")
	copied := path + ".restored"
	must(t, restoredBesideNewer(t, path, dir).Close())
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

// TestARestoredDatabaseGoesOnInANewArchive archives on after a restore, where the old archive has entries that
// were lost: in a new directory, which then has all entries of the restored timeline, and no other.
func TestARestoredDatabaseGoesOnInANewArchive(t *testing.T) {
	tmp := t.TempDir()
	old, next, path := filepath.Join(tmp, "old"), filepath.Join(tmp, "next"), filepath.Join(tmp, "a.db")
	restored := restoredBesideNewer(t, path, old)
	signedIn(t, restored, "after", 300)
	bundle := filepath.Join(old, "tile/entries/000.zst")
	text, err := os.ReadFile(bundle)
	must(t, err)
	must(t, os.WriteFile(bundle, append(slices.Clone(text[:len(text)-1]), text[len(text)-1]^1), 0o600))
	if n, err := archive.Run(t.Context(), restored.Timeline(), next, archived); err == nil ||
		openDir(t, next).Here() {
		t.Fatalf("a damaged archive is copied: %d, %v", n, err)
	}
	must(t, os.WriteFile(bundle, text, 0o600))
	for range 2 { // the second changes nothing
		if n, err := archive.Run(t.Context(), restored.Timeline(), next, archived); err != nil || n != archived {
			t.Fatal(n, err)
		}
	}
	must(t, os.RemoveAll(old))
	must(t, archive.Use(t.Context(), restored, ""))
	verified(t, restored, false)
	for object, want := range map[string]int{"before": 300, "lost": 0, "after": 300} {
		events, err := restored.Timeline().Events(t.Context(), timeline.Filter{Object: object})
		if err != nil || len(events) != want {
			t.Errorf("%d entries of %s, %v", len(events), object, err)
		}
	}
}

// TestAnArchiveWithoutItsCheckpoint has a checkpoint that a full disk or a bad copy has left empty.
func TestAnArchiveWithoutItsCheckpoint(t *testing.T) {
	dir, db := filepath.Join(t.TempDir(), "archive"), logOf(t)
	if _, err := archive.Run(t.Context(), db.Timeline(), dir, archived); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "checkpoint"), nil, 0o600))
	if _, err := archive.Run(t.Context(), db.Timeline(), dir, archived); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("it is gone on in: %v", err)
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
