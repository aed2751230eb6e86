package trace

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
)

// TestWiresharkReadsAnExport exports what went over TLS, and has tshark's
// libvirt dissector name every message.
func TestWiresharkReadsAnExport(t *testing.T) {
	tshark := posterntest.Need(t, "tshark")
	l := posterntest.SharedLibvirtd(t)
	var recording bytes.Buffer
	r, err := NewRecorder(&recording, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := traced(t, Config{Filter: Filter{PIDs: []int{l.PID}}, Payload: 64 << 10, Record: r}, func(l *posterntest.Libvirtd) {
		virsh(t, l.TLSURI(), "dominfo", "vm1")
		virsh(t, l.TLSURI(), "capabilities")
	})
	if err := r.Idle(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "export.pcapng")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewCapture(out)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Replay(bytes.NewReader(recording.Bytes()), Filter{}, false, x)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	n := x.Messages
	messages := c.of(func(e *event.Event) bool { return e.Kind.RPC() })
	if err != nil || n != len(messages) || n < 20 {
		t.Fatalf("%d messages exported of %d: %v", n, len(messages), err)
	}
	fields, err := exec.Command(tshark, "-r", file, "-Y", "libvirt", "-T", "fields", "-e", "libvirt.program", "-e", "libvirt.procedure", "-e", "libvirt.type", "-e", "libvirt.serial", "-e", "libvirt.status", "-e", "libvirt.length").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(string(fields)), "\n")
	if len(got) != n {
		t.Fatalf("tshark sees %d messages of %d", len(got), n)
	}
	for i, e := range messages {
		f := strings.Fields(got[i])
		want := fmt.Sprintf("%d %d %d %d %d", e.Proc, e.Type, e.Serial, e.Status, e.Len)
		if len(f) != 6 || strings.Join(f[1:], " ") != want {
			t.Errorf("message %d: tshark says %v, want %s", i, f, want)
		}
	}
}
