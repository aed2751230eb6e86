package backup_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
)

// small mounts a file system of a size.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		posterntest.Missing(t, "needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	return dir
}

// TestFullDiskLeavesNothing backs up and restores to a disk that is too small, and backs up
// from one that has no space for the copy.
func TestFullDiskLeavesNothing(t *testing.T) {
	posterntest.NeedRoot(t)
	r := newRig(t, 1)
	good := r.backup(backup.Options{To: t.TempDir()})
	fails := func(to string) {
		t.Helper()
		if _, err := backup.Make(t.Context(), r.st,
			backup.Options{To: to}); postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("a backup to %s: %v", to, err)
		}
		empty(t, to)
	}
	fails(small(t, "4k"))
	for _, size := range []string{"64k", "400k"} {
		dir := filepath.Join(small(t, size), "state")
		_, err := backup.Restore(t.Context(), good.Path, dir, nil, event)
		if postern.CodeOf(err) != postern.Unavailable {
			t.Errorf("a restore to %s: %v", size, err)
		}
		if _, err := state.Open(t.Context(), dir); err == nil {
			t.Error("it opens")
		}
		empty(t, dir, "run.pid")
	}
	r.leave()
	r.dir = filepath.Join(small(t, "4m"), "state")
	r.restore(good.Path)
	filler := filepath.Join(filepath.Dir(r.dir), "filler")
	if err := os.WriteFile(filler, make([]byte, 8<<20), 0o600); err == nil {
		t.Error("the disk is not full")
	}
	fails(t.TempDir())
	if left, _ := filepath.Glob(filepath.Join(r.dir, ".postern-work-*")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	must(t, os.Remove(filler))
	must(t, r.st.Close())
}

// TestKilledAtEachStepOfABackup ends a backup at each change of a directory. The next one
// is right, and nothing is left of the first. The state's files are never where it goes.
func TestKilledAtEachStepOfABackup(t *testing.T) {
	strace := posterntest.Need(t, "strace")
	r := newRig(t, 1)
	n := 1
	for ; ; n++ {
		to := t.TempDir()
		if !killed(t, strace, n, fmt.Sprint("make ", r.dir, " ", to)) {
			break
		}
		must(t, filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
			if d.Name() == "kek" || d.Name() == state.DatabaseFile {
				t.Errorf("step %d leaves %s", n, path)
			}
			return err
		}))
		// It may be there already. If it is, it is right.
		if whole, _ := filepath.Glob(filepath.Join(to, "*.zst")); len(whole) > 0 {
			_, err := backup.Check(t.Context(), whole[0], nil)
			must(t, err)
			must(t, os.Remove(whole[0]))
		}
		made := r.backup(backup.Options{To: to})
		empty(t, to, filepath.Base(made.Path))
		if left, _ := filepath.Glob(filepath.Join(r.dir, ".postern-work-*")); len(left) > 0 {
			t.Errorf("step %d: %q is left in the state", n, left)
		}
	}
	if n < 4 {
		t.Errorf("it was killed at %d steps", n-1)
	}
}

// TestKilledAtEachStepOfARestore ends a restore at each change of a directory. The state
// is not there, or is whole and accepts no used code; and restoring again makes it so.
func TestKilledAtEachStepOfARestore(t *testing.T) {
	strace := posterntest.Need(t, "strace")
	r := newRig(t, 1)
	made := r.backup(backup.Options{To: t.TempDir()})
	r.use(r.tokens[0])
	r.leave()
	n := 1
	for ; ; n++ {
		must(t, os.RemoveAll(r.dir))
		if !killed(t, strace, n, fmt.Sprint("restore ", made.Path, " ", r.dir)) {
			break
		}
		st, err := state.Open(t.Context(), r.dir)
		if err == nil {
			r.st = st
			r.replay()
			must(t, st.Close())
			continue
		}
		if code := postern.CodeOf(err); code != postern.NotFound && code != postern.Unavailable {
			t.Errorf("step %d: %v", n, err)
		}
		r.restore(made.Path)
		if r.newer() != 1 {
			t.Fatal("the code is known")
		}
		r.replay()
		must(t, r.st.Close())
	}
	if n < 8 {
		t.Errorf("it was killed at %d steps", n-1)
	}
}

// TestRootCopiesOutsideOfAServicesState keeps the copy where the service's user cannot replace it.
func TestRootCopiesOutsideOfAServicesState(t *testing.T) {
	posterntest.NeedRoot(t)
	strace := posterntest.Need(t, "strace")
	r := newRig(t, 0)
	must(t, os.Chown(r.dir, 65534, 65534))
	left := func(dir string) []string {
		found, err := filepath.Glob(filepath.Join(dir, ".postern-work-*"))
		must(t, err)
		return found
	}
	copies := 0
	for n := 1; n < 7; n++ {
		if !killed(t, strace, n, fmt.Sprint("make ", r.dir, " ", t.TempDir())) {
			t.Fatalf("it ended before step %d", n)
		}
		if found := left(r.dir); len(found) > 0 {
			t.Errorf("step %d: %q is left in the state", n, found)
		}
		copies += len(left(filepath.Dir(r.dir)))
	}
	if copies == 0 {
		t.Error("it was not killed while there was a copy")
	}
	r.backup(backup.Options{To: t.TempDir()})
	if found := left(filepath.Dir(r.dir)); len(found) > 0 {
		t.Errorf("%q is left", found)
	}
}

// TestACheckLeavesNothing checks a backup in a directory that it does not write to.
func TestACheckLeavesNothing(t *testing.T) {
	strace := posterntest.Need(t, "strace")
	r, to, tmp := newRig(t, 0), t.TempDir(), t.TempDir()
	made := r.backup(backup.Options{To: to})
	t.Setenv("TMPDIR", tmp)
	for n := 1; n < 4; n++ {
		if !killed(t, strace, n, "check "+made.Path) {
			t.Fatalf("it ended before step %d", n)
		}
		empty(t, to, filepath.Base(made.Path))
	}
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	must(t, err)
	for _, path := range left {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s is of mode %o", path, info.Mode().Perm())
		}
	}
	must(t, os.RemoveAll(tmp))
	must(t, os.Mkdir(tmp, 0o700))
	_, err = backup.Check(t.Context(), made.Path, nil)
	must(t, err)
	empty(t, tmp)
}
