//go:build linux

package inflight

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestClientsThatAreNotAccepted connects to sockets that this process listens on and
// does not accept from, as a daemon does that has as many clients as it takes.
func TestClientsThatAreNotAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libvirt-sock")
	for network, address := range map[string]string{"unix": path, "tcp": "127.0.0.1:0"} {
		t.Run(network, func(t *testing.T) {
			l, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			own, err := sockets(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			if network == "tcp" {
				want := strings.Replace(c.LocalAddr().String(), ":", ";", 1)
				if got := pendingTCP(os.Getpid(), own); !slices.Contains(got, want) {
					t.Errorf("%v wait, not %s", got, want)
				}
				return
			}
			waiting := map[string]bool{}
			for _, inode := range pendingUnix(own) {
				waiting[inode] = true
			}
			if got := holders(waiting); len(waiting) != 1 || len(got) != 1 ||
				got[0] != (owner{os.Getpid(), os.Geteuid()}) {
				t.Errorf("%v wait, of %v", waiting, got)
			}
		})
	}
}

// FuzzIcons reads mutated answers of the kernel's.
func FuzzIcons(f *testing.F) {
	own := map[string]bool{"1": true}
	f.Add([]byte{
		40, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr
		1, 1, 10, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // unix_diag_msg of socket 1
		8, 0, 3, 0, 7, 0, 0, 0, // UNIX_DIAG_ICONS: 7
	})
	f.Add([]byte{16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if inodes, _ := icons(b, own); len(inodes) > len(b)/4 {
			t.Errorf("%d sockets in %d bytes", len(inodes), len(b))
		}
	})
}
