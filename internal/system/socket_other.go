//go:build !linux

package system

import (
	"net"
	"os"
)

// PeerOf fails: it needs Linux.
func PeerOf(*net.UnixConn) (Peer, error) { return Peer{}, NeedsLinux("asking who uses a socket") }

// ListenUnix fails: it needs Linux.
func ListenUnix(string, string, os.FileMode) (*net.UnixListener, error) {
	return nil, NeedsLinux("a private socket")
}

// SocketPair fails: it needs Linux.
func SocketPair() (a, b *os.File, err error) { return nil, nil, NeedsLinux("a pair of sockets") }
