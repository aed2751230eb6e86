package system

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// TestWatchdog notifies a test in systemd's place until the process is stopped, and nobody
// where another process is watched.
func TestWatchdog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()+1))
	KeepWatchdog(t.Context()) // returns

	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, stop := context.WithCancel(t.Context())
	var watched sync.WaitGroup
	watched.Go(func() { KeepWatchdog(ctx) })
	for range 3 {
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != "WATCHDOG=1" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	stop()
	watched.Wait()
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		t.Fatal(err)
	}
	if err := Notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}
}
