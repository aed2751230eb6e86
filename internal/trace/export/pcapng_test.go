package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// TestWiresharkReadsAnExport exports what went over TLS, and has tshark's
// libvirt dissector name every message.
func TestWiresharkReadsAnExport(t *testing.T) {
	tshark := posterntest.Need(t, "tshark")
	l := posterntest.SharedLibvirtd(t)
	var recording bytes.Buffer
	r, err := record.NewRecorder(&recording, 0)
	if err != nil {
		t.Fatal(err)
	}
	c := capturing(t, capture.Config{Filter: correlate.Filter{PIDs: []int{l.PID}}, Payload: 64 << 10, Record: r},
		func() {
			for _, command := range [][]string{{"dominfo", "vm1"}, {"capabilities"}} {
				if out, err := posterntest.VirshAt(l.TLSURI(), command...); err != nil {
					t.Fatalf("virsh %v: %v: %s", command, err, out)
				}
			}
		})
	if err := r.Idle(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "export.pcapng")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewPcapng(out)
	if err != nil {
		t.Fatal(err)
	}
	_, err = record.Replay(bytes.NewReader(recording.Bytes()), correlate.Filter{}, false, x)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	n := x.Messages
	messages := c.Of(func(e *event.Event) bool { return e.Kind.RPC() })
	if err != nil || n != len(messages) || n < 20 {
		t.Fatalf("%d messages exported of %d: %v", n, len(messages), err)
	}
	fields, err := exec.Command(tshark, "-r", file, "-Y", "libvirt", "-T", "fields", "-e", "libvirt.program", "-e",
		"libvirt.procedure", "-e", "libvirt.type", "-e", "libvirt.serial", "-e", "libvirt.status", "-e",
		"libvirt.length").Output()
	if err != nil {
		t.Fatal(err)
	}
	faults, err := exec.Command(tshark, "-r", file, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-Y", "ip.checksum.status == 0 || tcp.checksum.status == 0 || tcp.analysis.flags || _ws.malformed").Output()
	if err != nil || len(faults) > 0 {
		t.Errorf("tshark finds faults: %v\n%s", err, faults)
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

// capturing returns what a session with cfg saw while do ran.
func capturing(t *testing.T, cfg capture.Config, do func()) *tracetest.Collector {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	c := &tracetest.Collector{}
	s, err := capture.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, c) }()
	do()
	stop()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Fatal(err)
	}
	return c
}
