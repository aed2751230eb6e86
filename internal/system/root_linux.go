package system

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenInRoot opens a file for reading as a process would whose root is the directory
// root: "..", absolute names and symbolic links stay below it (openat2(2),
// RESOLVE_IN_ROOT). It waits for no writer of a named pipe. It fails with ENOSYS
// before Linux 5.6.
func OpenInRoot(root, name string) (*os.File, error) {
	return openInRoot(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
}

// StatInRoot says what a file is, found as by OpenInRoot.
func StatInRoot(root, name string) (os.FileInfo, error) {
	f, err := openInRoot(root, name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func openInRoot(root, name string, flags uint64) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err == unix.EAGAIN || err == unix.EINTR { // something was renamed meanwhile
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}
