package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern/internal/system"
)

// work is a directory in which something is prepared. Its lock file is locked while it is
// in use: what a process that was killed leaves behind is removed by the next one.
type work struct {
	dir  string
	lock *os.File
}

const (
	workPrefix = ".postern-work-"
	lockFile   = "lock"
)

// newWork makes a directory of work below dir, and removes those of processes that are
// gone.
func newWork(dir string) (*work, error) {
	if dir == "" {
		dir = "."
	}
	parent, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	// One at a time makes, locks and removes.
	if err := system.Lock(parent); err != nil {
		return nil, err
	}
	if err := removeAbandoned(dir); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(dir, workPrefix) // of mode 0700
	if err != nil {
		return nil, err
	}
	w := &work{dir: path}
	if w.lock, err = os.OpenFile(w.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600); err == nil {
		err = system.TryLock(w.lock)
	}
	if err != nil {
		return nil, errors.Join(err, w.remove())
	}
	return w, nil
}

func removeAbandoned(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), workPrefix) {
			continue
		}
		old := &work{dir: filepath.Join(dir, e.Name())}
		old.lock, err = os.OpenFile(old.path(lockFile), os.O_RDWR, 0)
		switch {
		case err == nil && system.TryLock(old.lock) != nil: // in use
			old.lock.Close()
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		if err := old.remove(); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) path(name string) string { return filepath.Join(w.dir, name) }

func (w *work) remove() error {
	err := os.RemoveAll(w.dir)
	if w.lock != nil {
		w.lock.Close()
	}
	return err
}
