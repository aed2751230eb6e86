package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
)

// Options say how a backup is made.
type Options struct {
	To      string // a file, which is replaced, or a directory; "": the working directory
	Encrypt []age.Recipient
	Keep    int    // how many backups of the state stay in the directory; 0: all
	Program string // the version that makes it
}

// Made says what was written.
type Made struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"`    // bytes
	Removed   int    `json:"removed"` // older backups
	Encrypted bool   `json:"encrypted"`
	Manifest
}

// Note says what is not in the backup, or who can read it; "" if there is nothing to say.
func (m Made) Note() string {
	switch {
	case !m.Whole():
		return "the PostgreSQL database is not in it: dump that now, as with pg_dump --format=custom"
	case !m.has("kek") && !m.has("kek.next"):
		return "the key-encrypting key is not in it: keep the credential or the passphrase elsewhere"
	case !m.Encrypted:
		return "it is not encrypted: a person who can read it has every secret"
	}
	return ""
}

func (m Manifest) has(name string) bool {
	return slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == name })
}

// Make writes a backup of a state, which a server may use meanwhile. What it cannot finish
// leaves nothing behind, or what the next one removes. The copy of the state, which is not
// encrypted, is below the state directory until the backup is written.
func Make(ctx context.Context, st *state.State, o Options) (made Made, err error) {
	dir, name := o.To, ""
	if info, err := os.Stat(o.To); o.To != "" && (err != nil || !info.IsDir()) {
		dir, name = filepath.Dir(o.To), filepath.Base(o.To)
	}
	work, err := newWork(dir)
	if err != nil {
		return made, unavailable(err)
	}
	defer func() { err = errors.Join(err, work.remove()) }()
	if made.Manifest, made.Size, err = writeState(ctx, st, work.path("backup"), o); err != nil {
		return made, err
	}
	made.Encrypted = len(o.Encrypt) > 0
	if name != "" {
		made.Path = filepath.Join(dir, name)
		return made, unavailable(durable.Rename(work.path("backup"), made.Path))
	}
	series := seriesOf(made.Log)
	if made.Path, err = place(work.path("backup"), dir, series, made.Encrypted); err != nil {
		return made, unavailable(err)
	}
	made.Removed, err = removeOld(made.Path, series, o.Keep)
	return made, unavailable(err)
}

// writeState writes the backup of a state to a file, from a copy of the state.
func writeState(ctx context.Context, st *state.State, to string, o Options) (m Manifest, size int64, err error) {
	work, err := newWork(ownAbove(st.Dir))
	if err != nil {
		return m, 0, unavailable(err)
	}
	defer func() { err = errors.Join(err, work.remove()) }()
	copied := work.path("state")
	if m, err = copyState(ctx, st, copied); err != nil {
		return m, 0, err
	}
	m.Program = o.Program
	size, err = write(to, copied, m, o.Encrypt)
	return m, size, unavailable(err)
}

// ownAbove returns the state directory, or the nearest directory above it that belongs to
// this user. Where root copies a service's state, no process of that service can put a link
// in the place of the copy.
func ownAbove(dir string) string {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil || at == filepath.Dir(at) {
			return dir
		}
		if uid, _, ok := system.Owner(info); !ok || uid == os.Geteuid() {
			return at
		}
	}
}

// unavailable classifies an error of writing files.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*postern.Error](err); ok {
		return err
	}
	return postern.Errorf(postern.Unavailable, "write the backup: %w", err).
		WithHint("name a directory that this user may write; it and the state directory need space for the whole state")
}

// copyState copies a state into dir, which it makes.
func copyState(ctx context.Context, st *state.State, dir string) (m Manifest, err error) {
	m = Manifest{Version: 1, Made: time.Now().UTC().Truncate(time.Second), Database: "sqlite"}
	m.Log, m.Owner = st.Store.Timeline().LogVerifier(), ownerOf(st.Dir)
	if st.Store.Shared() {
		m.Database = "postgresql"
	}
	// The key may be replaced meanwhile: then the next copy has the new one.
	for range 3 {
		if err = os.RemoveAll(dir); err != nil {
			return m, unavailable(err)
		}
		if err = copyOnce(ctx, st, dir, &m); err == nil || postern.CodeOf(err) == postern.Unavailable {
			break
		}
	}
	if err != nil {
		return m, err
	}
	m.Files, err = list(dir)
	return m, unavailable(err)
}

func copyOnce(ctx context.Context, st *state.State, dir string, m *Manifest) (err error) {
	if m.LeftOut, err = copyFiles(st.Dir, dir); err != nil {
		return unavailable(err)
	}
	if !st.Store.Shared() {
		if err := st.Store.Snapshot(ctx, filepath.Join(dir, state.DatabaseFile)); err != nil {
			return err
		}
	}
	// That the copy opens with the copied key is tried here, not when it is needed.
	c, err := state.OpenCopy(ctx, dir, st.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if m.Holds, err = c.Store.Facts(ctx); err != nil {
		return err
	}
	return c.Store.CheckKeys(ctx)
}

// copyFiles copies the files of a state directory, without the database and what belongs
// to running processes. It returns the links that lead out of the directory, which it does
// not follow: what is there may be for root alone to read.
func copyFiles(from, to string) (left []string, err error) {
	root, err := os.OpenRoot(from)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if state.Transient(name) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		if state.Transient(name) {
			return nil
		}
		err = copyFile(root, name, filepath.Join(to, name))
		if err != nil && d.Type() == fs.ModeSymlink {
			left, err = append(left, name), nil
		}
		return err
	})
	return left, err
}

// copyFile copies a file that is one, or a link to one below the root.
func copyFile(root *os.Root, name, to string) error {
	info, err := root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	data, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}

// list returns the files below a directory with their hashes, the database last.
func list(dir string) (files []File, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f := File{Name: filepath.ToSlash(rel)}
		if err := f.measure(path); err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	slices.SortStableFunc(files, func(a, b File) int { return last(a) - last(b) })
	return files, err
}

func last(f File) int {
	if f.Name == state.DatabaseFile {
		return 1
	}
	return 0
}

// measure takes a file's mode, size and hash.
func (f *File) measure(path string) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return err
	}
	sum := sha256.New()
	f.Mode = info.Mode().Perm()
	if f.Size, err = io.Copy(sum, r); err != nil {
		return err
	}
	f.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// write writes the backup of a copied state, durably.
func write(path, dir string, m Manifest, to []age.Recipient) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w, err := newWriter(f, to)
	if err != nil {
		return 0, err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return 0, err
	}
	if err := w.add(manifestName, 0o600, int64(len(text)), m.Made, bytes.NewReader(text)); err != nil {
		return 0, err
	}
	for _, file := range m.Files {
		if err := w.addFile(dir, file, m.Made); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(w.finish(), f.Sync()); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), f.Close()
}

// seriesOf returns how the names of a state's backups begin.
func seriesOf(logKey string) string {
	name, _, _ := strings.Cut(logKey, "+")
	return "postern-" + strings.TrimPrefix(name, "postern-log-") + "-"
}

const (
	timeName  = "20060102T150405.000Z"
	suffix    = ".tar.zst"
	ageSuffix = ".age"
)

// place gives the backup a name by its time in a directory, where no other has it.
func place(from, dir, series string, encrypted bool) (string, error) {
	end := suffix
	if encrypted {
		end += ageSuffix
	}
	for {
		path := filepath.Join(dir, series+time.Now().UTC().Format(timeName)+end)
		err := os.Link(from, path)
		if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without hard links
			err = renameNew(from, path)
		}
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return path, errors.Join(err, durable.SyncDir(dir))
	}
}

// renameNew gives a file a name that no other has.
func renameNew(from, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Rename(from, to))
}

// removeOld removes older backups of a series, so that there are keep with the newest. A name
// of the future, as of a clock that was wrong, does not count.
func removeOld(newest, series string, keep int) (removed int, err error) {
	if keep == 0 {
		return 0, nil
	}
	dir := filepath.Dir(newest)
	entries, err := os.ReadDir(dir) // sorted, and so by time
	if err != nil {
		return 0, err
	}
	var names []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ageSuffix)
		if e.Type().IsRegular() && strings.HasPrefix(name, series) && strings.HasSuffix(name, suffix) &&
			e.Name() <= filepath.Base(newest) {
			names = append(names, e.Name())
		}
	}
	for len(names) > keep {
		if err := durable.Remove(filepath.Join(dir, names[0])); err != nil {
			return removed, err
		}
		names = names[1:]
		removed++
	}
	return removed, nil
}

// ownerOf returns the name of a directory's owner, "" if it is not known.
func ownerOf(dir string) string {
	info, err := os.Stat(dir)
	if err != nil {
		return ""
	}
	uid, _, ok := system.Owner(info)
	if !ok {
		return ""
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return ""
	}
	return u.Username
}
