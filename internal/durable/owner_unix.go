//go:build unix

package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/postern-project/postern"
)

// DirectoryOwner gives a file that root writes to the owner of its directory:
// the user that the server runs as.
func DirectoryOwner(f *os.File) error {
	info, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	return ownerOf(info)(f)
}

// ownerOf gives a file that root writes to the owner of another.
func ownerOf(info fs.FileInfo) Option {
	return func(f *os.File) error {
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || os.Geteuid() != 0 {
			return nil
		}
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
}

// private fails if others may read a file.
func private(path string, info fs.FileInfo, deny fs.FileMode) error {
	if mode := info.Mode(); mode.Perm()&deny != 0 || !mode.IsRegular() {
		return postern.Errorf(postern.Denied, "%s can be read by others (mode %04o)", path, mode.Perm()).
			WithHint("chmod 600 %s; and if somebody may have read it, make a new one", path)
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
