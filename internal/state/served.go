package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
)

// Lock keeps a second server off the state directory until unlock is called:
// Conflict (ErrServed) if one runs already.
func (s *State) Lock() (unlock func(), err error) { return LockDir(s.Dir) }

// LockDir does so for a directory that is not open.
func LockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, runFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "%w", err)
	}
	if err := durable.DirectoryOwner(f, f.Name()); err != nil {
		f.Close()
		return nil, postern.Errorf(postern.Unavailable, "%w", err)
	}
	if err := system.TryLock(f); err != nil {
		f.Close()
		pid, _ := ServedBy(dir)
		return nil, postern.Errorf(postern.Conflict, "%w (process %d)", ErrServed, pid).
			WithHint("make that one load a changed configuration; or stop it first")
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		f.Close()
		return nil, postern.Errorf(postern.Unavailable, "%w", err)
	}
	return func() { f.Close() }, nil
}

// ServedBy returns the process that serves a state directory; NotFound
// (ErrNotServed) if none does.
func ServedBy(dir string) (pid int, err error) {
	none := postern.Errorf(postern.NotFound, "%w in %s", ErrNotServed, dir).WithHint("start the server")
	f, err := os.Open(filepath.Join(dir, runFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, none
	}
	if err != nil {
		return 0, postern.Errorf(postern.Unavailable, "%w", err)
	}
	defer f.Close()
	if system.TryLockShared(f) == nil {
		return 0, none
	}
	if _, err := fmt.Fscan(f, &pid); err != nil || pid <= 1 {
		return 0, none
	}
	return pid, nil
}
