package state

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/timeline"
)

// A mark is the furthest position of a database that was seen: its epoch and its
// timeline's checkpoint. It is kept where a restore of the database or of the state
// directory does not put it back, in a directory beside the state directory or in those
// that $POSTERN_SEEN names. A database that does not contain its mark is older than what
// was seen of it: which one-time passwords were used since is not known there.
//
// A mark is written after each commit and before its answer, on disk within a second, or at
// once after a second without one. The processes that share a state raise it in turn.
const (
	markFile = "mark"
	seenEnv  = "POSTERN_SEEN"
	markSize = 512 // bytes: one sector, which is written as a whole
	markHead = "postern mark 1"
)

// errMark says that a mark could not be read or written, which may pass.
var errMark = errors.New("how far the database was seen to be is not known now")

func markError(err error) error {
	if errors.Is(err, errMark) || errors.Is(err, ErrRestored) {
		return err
	}
	return postern.Errorf(postern.Unavailable, "%w: %v", errMark, err).
		WithHint("let the user that the server runs as read and write the mark")
}

// markSync is how long a mark may be written and not on disk.
const markSync = time.Second

// mark is one position.
type mark struct {
	epoch      int64
	checkpoint timeline.Checkpoint
	signed     string
}

// after reports whether m is further than other.
func (m mark) after(other mark) bool {
	return m.epoch > other.epoch || m.epoch == other.epoch && m.checkpoint.Size > other.checkpoint.Size
}

func newMark(epoch int64, signed, keys string) (mark, error) {
	v, err := timeline.ParseKeys(keys)
	if err != nil {
		return mark{}, err
	}
	c, err := timeline.OpenCheckpoint(signed, v)
	return mark{epoch, c, signed}, err
}

// bytes returns the mark as its file holds it.
func (m mark) bytes() []byte {
	b := append([]byte(markHead+"\n"+strconv.FormatInt(m.epoch, 10)+"\n"), m.signed...)
	return append(b, bytes.Repeat([]byte("\n"), max(0, markSize-len(b)))...)
}

func parseMark(b []byte, keys string) (mark, error) {
	lines := strings.SplitN(string(b), "\n", 3)
	if len(lines) < 3 || lines[0] != markHead {
		return mark{}, errors.New("it is not a mark")
	}
	epoch, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return mark{}, err
	}
	return newMark(epoch, strings.TrimRight(lines[2], "\n")+"\n", keys)
}

// marks are the places of one state's mark. All have the same, and the furthest is valid.
// It is safe for concurrent use.
type marks struct {
	dirs []string
	like string        // the state directory, whose owner they belong to
	keys func() string // the public keys of the log

	mu     sync.Mutex
	files  []*os.File
	last   mark // that was written or read here last, and its bytes
	bytes  []byte
	synced time.Time
	dirty  bool
}

// newMarks returns the marks of a state directory.
func newMarks(dir string, keys func() string) *marks {
	m := &marks{dirs: filepath.SplitList(os.Getenv(seenEnv)), like: dir, keys: keys}
	if len(m.dirs) == 0 {
		m.dirs = []string{SeenDir(dir)}
	}
	return m
}

// SeenDir returns where the mark of a state directory is by default: beside it.
func SeenDir(dir string) string { return filepath.Clean(dir) + "-seen" }

// open opens every mark: errNoMark if one is missing.
func (m *marks) open() error {
	if len(m.files) > 0 {
		return nil
	}
	var files []*os.File
	for _, dir := range m.dirs {
		f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_RDWR, 0)
		if err != nil {
			closeAll(files)
			if errors.Is(err, fs.ErrNotExist) {
				return noMark(dir)
			}
			return markError(err)
		}
		files = append(files, f)
	}
	m.files = files
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// errNoMark says that there is no mark. It is an ErrRestored, too.
var errNoMark = fmt.Errorf("%w, or was moved", ErrRestored)

func noMark(dir string) error {
	return postern.Errorf(postern.Unavailable, "%w: nothing in %s says how far the timeline was", errNoMark, dir).
		WithHint("put the mark's directory back where it was moved from; or accept the state as it is, which " +
			"disables what may have been used")
}

// read returns the furthest mark.
func (m *marks) read() (mark, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return mark{}, err
	}
	var furthest mark
	for _, f := range m.files {
		one, err := m.readLocked(f)
		if err != nil {
			return mark{}, err
		}
		if one.after(furthest) || furthest.signed == "" {
			furthest = one
		}
	}
	return furthest, nil
}

// readLocked reads a mark that no other process writes meanwhile.
func (m *marks) readLocked(f *os.File) (mark, error) {
	if err := system.Lock(f); err != nil {
		return mark{}, markError(err)
	}
	defer func() { _ = system.Unlock(f) }()
	return m.readOne(f)
}

func (m *marks) readOne(f *os.File) (mark, error) {
	b := make([]byte, markSize)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return mark{}, markError(err)
	}
	if bytes.Equal(b, m.bytes) {
		return m.last, nil
	}
	one, err := parseMark(b, m.keys())
	if err != nil {
		return mark{}, postern.Errorf(postern.Unavailable, "%w: the mark %s is damaged, or another timeline's: %v",
			ErrRestored, f.Name(), err).
			WithHint("accept the state as it is, which disables what may have been used")
	}
	m.last, m.bytes = one, b
	return one, nil
}

// raise writes the mark where the one that is there is not further.
func (m *marks) raise(to mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.open(); err != nil {
		return err
	}
	for _, f := range m.files {
		if err := m.raiseOne(f, to); err != nil {
			return markError(err)
		}
	}
	if time.Since(m.synced) < markSync {
		return nil
	}
	return m.sync()
}

func (m *marks) raiseOne(f *os.File, to mark) error {
	if err := system.Lock(f); err != nil {
		return err
	}
	defer func() { _ = system.Unlock(f) }()
	is, err := m.readOne(f)
	if err != nil || !to.after(is) {
		return err
	}
	return m.write(f, to)
}

func (m *marks) write(f *os.File, to mark) error {
	m.last, m.bytes, m.dirty = to, to.bytes(), true
	_, err := f.WriteAt(m.bytes, 0)
	return err
}

// flush puts what was written on disk.
func (m *marks) flush() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sync()
}

func (m *marks) sync() error {
	if !m.dirty {
		return nil
	}
	for _, f := range m.files {
		if err := f.Sync(); err != nil {
			return markError(err)
		}
	}
	m.dirty, m.synced = false, time.Now()
	return nil
}

// set makes the mark where there is none, or none that can be read, and raises it where
// there is one.
func (m *marks) set(to mark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, dir := range m.dirs {
		if err := m.make(dir, to); err != nil {
			return postern.Errorf(postern.Unavailable, "make the mark of how far the timeline was: %w", err).
				WithHint("name a directory in $%s that this user may write, and that is not restored together with %s",
					seenEnv, m.like)
		}
	}
	return m.open()
}

func (m *marks) make(dir string, to mark) error {
	if err := m.makeDir(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, markFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := durable.DirectoryOwner(f, f.Name()); err != nil {
		return err
	}
	if err := system.Lock(f); err != nil {
		return err
	}
	if is, err := m.readOne(f); err == nil && is.after(to) {
		return nil
	}
	if err := m.write(f, to); err != nil {
		return err
	}
	return errors.Join(f.Sync(), durable.SyncDir(dir), durable.SyncDir(filepath.Dir(dir)))
}

// makeDir makes a mark's directory, which belongs to the state directory's owner.
func (m *marks) makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	info, err := os.Stat(m.like)
	if err != nil {
		return err
	}
	if uid, gid, ok := system.Owner(info); ok && os.Geteuid() == 0 {
		return os.Chown(dir, uid, gid)
	}
	return nil
}

func (m *marks) close() error {
	err := m.flush()
	m.mu.Lock()
	defer m.mu.Unlock()
	closeAll(m.files)
	m.files = nil
	return err
}
