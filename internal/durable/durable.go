// Package durable reads and writes important files: completely, on disk before a call
// returns, and, for secrets, unreadable by other users.
//
// A file is written under another name and then renamed, so that a reader, or a server
// after a crash, finds the old content or the new, never a part. Calls for one path may
// overlap; the last one wins.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Option sets the owner of a file that root writes. Without one it is root.
type Option func(f *os.File, path string) error

// Create writes a file that must not exist: the error is fs.ErrExist if it does.
// A file system without hard links gets it in place, and a crash may then leave
// a part of it.
func Create(path string, data []byte, mode fs.FileMode, options ...Option) error {
	return write(path, data, mode, options, func(new string) error {
		err := os.Link(new, path)
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return createInPlace(path, data, mode, options)
		}
		return err
	})
}

// Ensure writes a file unless there is one of that name. It also succeeds if another
// process makes it meanwhile.
func Ensure(path string, data []byte, mode fs.FileMode, options ...Option) error {
	if err := Create(path, data, mode, options...); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Replace writes a file in the place of any that is there. A symbolic link is
// replaced, not followed.
func Replace(path string, data []byte, mode fs.FileMode, options ...Option) error {
	return write(path, data, mode, options, func(new string) error { return os.Rename(new, path) })
}

// Output writes to the file that the user of a command named. Unlike Replace it follows
// symbolic links, keeps the mode and owner of an existing file, and writes directly to
// what is not a plain file: /dev/stdout, a named pipe.
func Output(path string, data []byte, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Replace(path, data, mode)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return os.WriteFile(path, data, mode)
	}
	if path, err = follow(path); err != nil {
		return err
	}
	return Replace(path, data, info.Mode().Perm(), KeepOwner)
}

// maxLinks is how many symbolic links are followed, as on Linux (path_resolution(7)).
const maxLinks = 40

// follow returns the path of the file that a path names, which is not a symbolic
// link itself. Its directory stays as it is written: what reads as a link there may
// lead elsewhere for the kernel, as /proc/PID/root does.
func follow(path string) (string, error) {
	for range maxLinks {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return path, err
		}
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(target) {
			dir, _ := filepath.Split(path)
			target = dir + target
		}
		path = target
	}
	return "", &fs.PathError{Op: "follow", Path: path, Err: errors.New("too many symbolic links")}
}

// Rename gives a file another name, in the place of any file that has it.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// MakeDir makes a directory and those above it, unless they are there. Those that it makes have the mode, and
// are on disk when it returns.
func MakeDir(path string, mode fs.FileMode) error {
	if isDir(path) {
		return nil
	}
	if parent := filepath.Dir(path); parent != path {
		if err := MakeDir(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode); err != nil && !isDir(path) { // another process may have been first
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// Remove removes a file. It may be gone already.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// write writes a file beside path and has it put in its place.
func write(path string, data []byte, mode fs.FileMode, options []Option, place func(new string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails where it was renamed
	if err := fill(f, path, data, mode, options); err != nil {
		return err
	}
	if err := place(f.Name()); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// fill writes and closes a new file. It belongs to its reader before it holds
// anything.
func fill(f *os.File, path string, data []byte, mode fs.FileMode, options []Option) error {
	defer f.Close()
	for _, o := range options {
		if err := o(f, path); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil { // chown(2) clears some bits
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func createInPlace(path string, data []byte, mode fs.FileMode, options []Option) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode&0o600)
	if err != nil {
		return err
	}
	if err := fill(f, path, data, mode, options); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
