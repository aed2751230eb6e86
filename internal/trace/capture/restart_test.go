package capture

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// TestDaemonIsRestartedAndReplaced traces while the daemon is killed, started
// again, and started with another libvirt.so.0 which is then removed from disk.
func TestDaemonIsRestartedAndReplaced(t *testing.T) {
	l := posterntest.SharedLibvirtd(t)
	pids := map[int]bool{l.PID: false}
	first := l.PID
	file := libraryOf(t, l.PID)
	library, err := io.ReadAll(file)
	if file.Close(); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	if err := os.Chmod(other, 0o755); err != nil {
		t.Fatal(err)
	}
	c, _ := traced(t, Config{}, func(l *posterntest.Libvirtd) {
		versions(t, l, 3)
		r, err := posterntest.DialRPC("unix", l.Socket()) // one that is open when it ends
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		l.Kill()
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		pids[l.PID] = false
		versions(t, l, 3)
		l.Kill()
		if err := os.WriteFile(filepath.Join(other, "libvirt.so.0"), library, 0o755); err != nil {
			t.Fatal(err)
		}
		l.Env = []string{"LD_LIBRARY_PATH=" + other}
		err = l.Start()
		l.Env = nil
		if err != nil {
			t.Fatal(err)
		}
		pids[l.PID] = false
		if err := os.Remove(filepath.Join(other, "libvirt.so.0")); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return attachedToDeleted(t, l.PID) })
		versions(t, l, 3)
	})
	for _, e := range c.Of(func(e *event.Event) bool { return isVersion(e) && !e.NoPayload }) {
		pids[e.PID] = true
	}
	var gone []int
	for _, e := range c.Of(func(e *event.Event) bool { return e.Kind == event.Gone }) {
		if gone = append(gone, e.PID); e.Comm != "libvirtd" {
			t.Errorf("%q has gone", e.Comm)
		}
	}
	if !slices.Contains(gone, first) {
		t.Errorf("%v have gone, not %d, which was killed", gone, first)
	}
	for pid, seen := range pids {
		if !seen {
			t.Errorf("nothing was seen of process %d", pid)
		}
	}
	// What was removed from disk is still found by what has it mapped.
	c, _ = traced(t, Config{Filter: correlate.Filter{PIDs: []int{l.PID}}}, func(l *posterntest.Libvirtd) {
		versions(t, l, 3)
	})
	if n := len(c.Of(isVersion)); n != 6 {
		t.Errorf("%d messages of a library that was removed from disk, want 6", n)
	}
	l.Kill()
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
}

// attachedToDeleted reports whether the copy of the library that was deleted has been
// attached to: its first instruction of some probe is a breakpoint then.
func attachedToDeleted(t *testing.T, pid int) bool {
	t.Helper()
	maps, err := usdt.Mappings(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if !m.Deleted || !strings.HasSuffix(m.Path, "libvirt.so.0") {
			continue
		}
		file, err := m.Open(pid)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		parsed, err := usdt.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		return raised(t, pid, m, parsed.Probes)
	}
	t.Fatal("the daemon has no deleted library")
	return false
}

// raised reports whether the code of a message probe has been replaced in memory.
func raised(t *testing.T, pid int, m usdt.Mapping, probes []usdt.Probe) bool {
	t.Helper()
	for _, p := range probes {
		if p.Name != "rpc_server_client_msg_rx" {
			continue
		}
		var b [1]byte
		return stack.ReadMemory(pid, m.Start+p.Addr, b[:]) && b[0] != 0x90
	}
	return false
}
