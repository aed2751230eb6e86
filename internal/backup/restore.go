package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"filippo.io/age"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
)

// Restored says what a backup brought back.
type Restored struct {
	Manifest
	Disabled store.Disabled `json:"disabled"` // since it may have been used after the backup
}

// Restore puts a backup's state into a directory that has none, which it makes if need
// be. Nothing is in its place before all of it was checked: each file's hash, that the
// keys open the secrets, and the timeline. What may have been used since the backup is
// taken out of use, as [state.State.AcceptRestored] says, in the name of the actor of the
// event. Cut short at any point, it is done by the same call again.
//
// A backup without a database puts the other files in place. Whether the database, which
// is elsewhere, was restored too shows when it is opened there.
func Restore(
	ctx context.Context, path, dir string, identities []age.Identity, event postern.Event,
) (r Restored, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, postern.Errorf(postern.Unavailable, "make the state directory: %w", err).
			WithHint("name a directory that this user may write")
	}
	unlock, err := state.LockDir(dir)
	if err != nil {
		return r, err
	}
	defer unlock()
	if err := vacant(dir); err != nil {
		return r, err
	}
	work, err := newWork(dir)
	if err != nil {
		return r, unavailable(err)
	}
	defer func() { err = errors.Join(err, work.remove()) }()
	copied := work.path("state")
	if r.Manifest, err = unpack(path, copied, identities); err != nil {
		return r, err
	}
	if r.Whole() {
		if err := state.UsesOwnDatabase(copied, dir); err != nil {
			return r, err
		}
	}
	if err := own(dir, r.Owner); err != nil {
		return r, unavailable(err)
	}
	if r.Whole() {
		if r.Disabled, err = check(ctx, copied, dir, r.Manifest, &event); err != nil {
			return r, err
		}
	}
	return r, unavailable(putInPlace(copied, dir, r.Manifest))
}

// Check reads a backup as Restore does, and puts nothing in place: what is unpacked for it
// goes into a directory of its own below [os.TempDir], which only this user may read.
func Check(ctx context.Context, path string, identities []age.Identity) (m Manifest, err error) {
	work, err := os.MkdirTemp("", workPrefix) // of mode 0700
	if err != nil {
		return m, unavailable(err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	copied := filepath.Join(work, "state")
	if m, err = unpack(path, copied, identities); err != nil || !m.Whole() {
		return m, err
	}
	_, err = check(ctx, copied, copied, m, nil)
	return m, err
}

// vacant fails unless a directory is empty, or has what a restore that was cut short left.
func vacant(dir string) error {
	_, begun := os.Stat(filepath.Join(dir, state.RestoreFile))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return unavailable(err)
	}
	for _, e := range entries {
		database := strings.HasPrefix(e.Name(), state.DatabaseFile)
		if database || begun != nil && !state.Transient(e.Name()) {
			return postern.Errorf(postern.Conflict, "%s is not empty: there is %s", dir, e.Name()).
				WithHint("move the directory away, but leave %s, which says what was used", state.SeenDir(dir))
		}
	}
	return nil
}

func unpack(path, dir string, identities []age.Identity) (m Manifest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return m, postern.Errorf(postern.NotFound, "open the backup: %w", err)
	}
	defer f.Close()
	r, err := newReader(f, identities)
	if err != nil {
		return m, err
	}
	defer r.zstd.Close()
	if m, err = r.manifest(); err != nil {
		return m, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, unavailable(err)
	}
	return m, unavailable(r.extract(m, dir))
}

// check checks an unpacked state, and with an event goes on with it.
func check(
	ctx context.Context, copied, dir string, m Manifest, event *postern.Event,
) (off store.Disabled, err error) {
	s, err := state.OpenCopy(ctx, copied, dir)
	if err != nil {
		return off, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.Store.Timeline().LogVerifier() != m.Log {
		return off, errDamaged("its timeline is another than it says")
	}
	if err := s.Store.CheckKeys(ctx); err != nil {
		return off, err
	}
	report, err := s.VerifyLog(ctx)
	if err != nil {
		return off, err
	}
	if len(report.Problems) > 0 {
		return off, errDamaged("its timeline does not verify: %s", report.Problems[0])
	}
	if event == nil {
		return off, nil
	}
	event.Reason = fmt.Sprintf("backup of %s", m.Made.Format("2006-01-02 15:04:05 MST"))
	return s.AcceptRestored(ctx, false, *event)
}

// putInPlace moves the files of a copied state into its directory, the database last.
func putInPlace(from, dir string, m Manifest) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := ownTree(from, dir); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, state.RestoreFile), nil, 0o600); err != nil {
		return err
	}
	database := false
	for _, e := range entries {
		if e.Name() == state.DatabaseFile {
			database = true
			continue
		}
		to := filepath.Join(dir, e.Name())
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(from, e.Name()), to); err != nil {
			return err
		}
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	if database {
		if err := durable.Rename(filepath.Join(from, state.DatabaseFile),
			filepath.Join(dir, state.DatabaseFile)); err != nil {
			return err
		}
	}
	return durable.Remove(filepath.Join(dir, state.RestoreFile))
}

// own gives a directory of root's to the user whom the backup names, if there is one here.
func own(dir, name string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, _, ok := system.Owner(info)
	u, unknown := user.Lookup(name)
	if !ok || uid != 0 || os.Geteuid() != 0 || unknown != nil {
		return nil
	}
	uid, err = strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if err = errors.Join(err, gerr); err != nil {
		return err
	}
	return errors.Join(os.Chown(dir, uid, gid), ownTree(dir, dir))
}

// ownTree gives what root restores to the owner of the state directory.
func ownTree(from, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, gid, ok := system.Owner(info)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}
