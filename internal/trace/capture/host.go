//go:build linux

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/postern-project/postern/internal/trace/stack"
	"golang.org/x/sys/unix"
)

func readWord(pid int, addr uint64) (uint64, bool) {
	var b [8]byte
	ok := stack.ReadMemory(pid, addr, b[:])
	return binary.LittleEndian.Uint64(b[:]), ok
}

// copyFD returns a descriptor of our own for one of another process's.
func copyFD(pid, fd int) (int, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	return unix.PidfdGetfd(p, fd, 0)
}

// linkOfFD returns what a process's descriptor is, as /proc shows it. There it is
// closed to another user with all that tracing needs, but not to root; a copy of
// the descriptor is open to both.
func linkOfFD(pid, fd int) (string, error) {
	target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if !errors.Is(err, fs.ErrPermission) {
		return target, err
	}
	local, err := copyFD(pid, fd)
	if err != nil {
		return "", err
	}
	defer unix.Close(local)
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", local))
}

func isSocket(pid, fd int) bool {
	target, err := linkOfFD(pid, fd)
	return err == nil && strings.HasPrefix(target, "socket:")
}

// describeFD says what a process's descriptor is: a path, eventfd, or for a
// socket its addresses.
func describeFD(pid, fd int) string {
	target, err := linkOfFD(pid, fd)
	if err != nil {
		return ""
	}
	if rest, ok := strings.CutPrefix(target, "anon_inode:"); ok {
		return strings.Trim(rest, "[]")
	}
	kind, _, ok := strings.Cut(target, ":[")
	if !ok || strings.HasPrefix(target, "/") {
		return target
	}
	if kind == "socket" {
		if text := describeSocket(pid, fd); text != "" {
			return text
		}
	}
	return kind
}

func describeSocket(pid, fd int) string {
	local, err := copyFD(pid, fd)
	if err != nil {
		return ""
	}
	defer unix.Close(local)
	addr, err := unix.Getsockname(local)
	if err != nil {
		return ""
	}
	mine, peer := addressText(addr), ""
	if a, err := unix.Getpeername(local); err == nil {
		peer = addressText(a)
	}
	switch {
	case peer != "" && mine != "":
		return "socket " + mine + " from " + peer
	case peer != "":
		return "socket to " + peer
	case mine != "":
		return "socket " + mine
	}
	return "socket"
}

// addressText writes an address as libvirt does: 127.0.0.1;16509, or a Unix
// socket's path.
func addressText(a unix.Sockaddr) string {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("%s;%d", netip.AddrFrom4(a.Addr), a.Port)
	case *unix.SockaddrInet6:
		return fmt.Sprintf("%s;%d", netip.AddrFrom16(a.Addr), a.Port)
	case *unix.SockaddrUnix:
		if a.Name == "@" { // unnamed
			return ""
		}
		return a.Name
	case *unix.SockaddrNetlink:
		return "netlink"
	}
	return ""
}
