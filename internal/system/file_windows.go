package system

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// Owner does not know who owns a file: ok is false.
func Owner(fs.FileInfo) (uid, gid int, ok bool) { return 0, 0, false }

// Inode does not know a file's number: ok is false.
func Inode(fs.FileInfo) (n uint64, ok bool) { return 0, false }

// Lock waits until no other process has the file locked, and locks it until it
// is closed.
func Lock(f *os.File) error { return lock(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// Unlock ends a lock.
func Unlock(f *os.File) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, &windows.Overlapped{OffsetHigh: lockAt})
}

// TryLock locks a file until it is closed, or fails at once where another
// process has it locked.
func TryLock(f *os.File) error {
	return lock(f, windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY)
}

// TryLockShared locks a file against [Lock] and [TryLock] of other processes, or
// fails at once where one of them has it locked.
func TryLockShared(f *os.File) error { return lock(f, windows.LOCKFILE_FAIL_IMMEDIATELY) }

// lockAt is the byte that is locked: one that no file reaches, since what is
// locked cannot be read by others.
const lockAt = 1 << 30

func lock(f *os.File, flags uint32) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{OffsetHigh: lockAt})
}

// Duplicate returns the same open file again.
func Duplicate(f *os.File) (*os.File, error) {
	self := windows.CurrentProcess()
	var h windows.Handle
	err := windows.DuplicateHandle(self, windows.Handle(f.Fd()), self, &h, 0, false, windows.DUPLICATE_SAME_ACCESS)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), f.Name()), nil
}

// Free does not know how much may still be written: ok is false.
func Free(string) (bytes uint64, ok bool) { return 0, false }
