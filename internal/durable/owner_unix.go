//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/postern-project/postern"
)

// DirectoryOwner gives the file to the owner of its directory: the user that the
// server runs as.
func DirectoryOwner(f *os.File, path string) error { return ownLike(f, filepath.Dir(path)) }

// KeepOwner gives the file to the owner of the one that it replaces, if there is
// one.
func KeepOwner(f *os.File, path string) error {
	if err := ownLike(f, path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ownLike gives a file that root writes to the owner of another.
func ownLike(f *os.File, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// private fails if others may read a file.
func private(path string, info fs.FileInfo, deny fs.FileMode) error {
	if mode := info.Mode(); mode.Perm()&deny != 0 || !mode.IsRegular() {
		return postern.Errorf(postern.Denied, "%s can be read by others (mode %04o)", path, mode.Perm()).
			WithHint("chmod 600 %s; and if another user may have read it, make a new one", path)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) != os.Geteuid() && owner.Uid != 0 && os.Geteuid() != 0 {
		return postern.Errorf(postern.Denied, "%s belongs to another user", path)
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
