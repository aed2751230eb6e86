package front

import (
	"net"
	"testing"
)

// TestPassedSockets holds which address a socket of systemd's serves: its own, and no wider
// one.
func TestPassedSockets(t *testing.T) {
	for _, c := range []struct {
		socket, address string
		serves          bool
	}{
		{"[::]:443", ":443", true},
		{"0.0.0.0:443", ":443", true},
		{"[::]:443", "[::]:443", true},
		{"[::]:443", ":80", false},
		{"[::]:443", "127.0.0.1:443", false},
		{"127.0.0.1:443", "127.0.0.1:443", true},
		{"[::ffff:127.0.0.1]:443", "127.0.0.1:443", true},
		{"127.0.0.1:443", ":443", false},
		{"127.0.0.1:443", "[::1]:443", false},
		{"127.0.0.1:443", "localhost:443", false},
		{"127.0.0.1:443", "443", false},
	} {
		addr, err := net.ResolveTCPAddr("tcp", c.socket)
		if err != nil {
			t.Fatal(err)
		}
		if got := servesAddress(addr, c.address); got != c.serves {
			t.Errorf("a socket at %s serves %s: %v", c.socket, c.address, got)
		}
	}
	if servesAddress(&net.UnixAddr{Name: "/run/x", Net: "unix"}, ":443") {
		t.Error("a Unix socket serves :443")
	}
}
