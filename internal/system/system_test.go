package system

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
)

func TestNeedsLinuxSaysWhatToDo(t *testing.T) {
	err := NeedsLinux("watching libvirt")
	if postern.CodeOf(err) != postern.Unavailable || postern.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, postern.HintOf(err))
	}
}

func TestPrivateSocket(t *testing.T) {
	for _, network := range []string{"unix", "unixpacket"} {
		path := filepath.Join(t.TempDir(), "new", "socket")
		l, err := ListenUnix(network, path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", network, st, err)
		}
		if _, err := ListenUnix(network, path, 0o600); postern.CodeOf(err) != postern.Conflict {
			t.Errorf("%s: a second one listens: %v", network, err)
		}
		c, err := net.Dial(network, path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peer, err := PeerOf(c.(*net.UnixConn))
		if err != nil || peer.PID != os.Getpid() || peer.UID != os.Geteuid() {
			t.Errorf("%s: the peer is %+v, %v", network, peer, err)
		}
		// As after a crash: the file stays, and no process listens.
		l.SetUnlinkOnClose(false)
		l.Close()
		if l, err = ListenUnix(network, path, 0o600); err != nil {
			t.Fatalf("%s: what a crash left is not replaced: %v", network, err)
		}
		l.Close()
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: closing leaves the file: %v", network, err)
		}
	}
}

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first := open()
	if err := Lock(first); err != nil {
		t.Fatal(err)
	}
	if TryLock(open()) == nil || TryLockShared(open()) == nil {
		t.Error("locked twice")
	}
	first.Close()
	a, b := open(), open()
	if TryLockShared(a) != nil || TryLockShared(b) != nil || TryLock(open()) == nil {
		t.Error("shared locks do not hold as they should")
	}
}
