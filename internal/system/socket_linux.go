package system

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// PeerOf returns who is at the other end of a Unix socket (SO_PEERCRED, unix(7)).
func PeerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var opErr error
	err = raw.Control(func(fd uintptr) {
		cred, opErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, opErr); err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(cred.Pid), UID: int(cred.Uid)}, nil
}

var socketTypes = map[string]int{"unix": unix.SOCK_STREAM, "unixpacket": unix.SOCK_SEQPACKET}

// ListenUnix makes a Unix socket with a mode: with 0600 only its owner can
// connect, from the first moment on. The network is unix or unixpacket. A socket
// that no process listens on any more is replaced; a directory that is missing is
// made. It fails with postern.Conflict where another process listens.
func ListenUnix(network, path string, mode os.FileMode) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial(network, path); err == nil {
		c.Close()
		return nil, postern.Errorf(postern.Conflict, "another server answers on %s", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, socketTypes[network]|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	// The mode of a socket that is not bound yet becomes its file's mode, so
	// there is no moment at which others can connect.
	if err := unix.Fchmod(fd, uint32(mode.Perm())); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// The umask took bits away from it, never added any.
	if err := os.Chmod(path, mode.Perm()); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, err
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(true)
	return l.(*net.UnixListener), nil
}

// SocketPair makes two connected Unix sockets.
func SocketPair() (a, b *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket"), nil
}
