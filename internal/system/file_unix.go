//go:build unix

package system

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Owner returns who owns a file; ok is false where that is not known.
func Owner(info fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

// Inode returns a file's number on its file system; ok is false where it has none.
func Inode(info fs.FileInfo) (n uint64, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Ino, true
}

// Lock waits until no other process has the file locked, and locks it until it
// is closed.
func Lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX) }

// Unlock ends a lock.
func Unlock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// TryLock locks a file until it is closed, or fails at once where another
// process has it locked.
func TryLock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// TryLockShared locks a file against [Lock] and [TryLock] of other processes, or
// fails at once where one of them has it locked.
func TryLockShared(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) }

// Duplicate returns the same open file again.
func Duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// Free returns how many bytes an ordinary user may still write to the file system
// of a path; ok is false where that is not known.
func Free(path string) (bytes uint64, ok bool) {
	var disk unix.Statfs_t
	if unix.Statfs(path, &disk) != nil {
		return 0, false
	}
	return uint64(disk.Bavail) * uint64(disk.Bsize), true
}
