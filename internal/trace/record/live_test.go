package record_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/livetest"
	"github.com/postern-project/postern/internal/trace/record"
	"golang.org/x/sys/unix"
)

var both = capture.Config{What: capture.RPC | capture.Monitor}

// recordTrace records a trace while do runs.
func recordTrace(t *testing.T, f record.File, do func()) (full bool) {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	livetest.Run(t, do, func(ctx context.Context, ready func(*capture.Session)) (sum event.Summary, err error) {
		sum, full, err = f.Trace(ctx, both, ready)
		return sum, err
	})
	return full
}

// replay returns what is written of a recording.
func replay(t *testing.T, file string, f correlate.Filter, c format.Config) string {
	t.Helper()
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var out bytes.Buffer
	w, err := format.New(&out, c)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := record.Replay(in, f, c.Tree, &format.Replay{Writer: w})
	if err == nil {
		err = w.End(sum.Seen, sum.Losses)
	}
	if err != nil || sum.Seen == 0 || len(sum.Losses) > 0 {
		t.Fatalf("replayed %v: %v", sum, err)
	}
	return out.String()
}

// TestTracesAreRecorded records what a real libvirtd does.
func TestTracesAreRecorded(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	t.Run("replay", func(t *testing.T) { replayInEachFormat(t, l) })
	t.Run("limit", func(t *testing.T) { recordToTheLimit(t, l) })
	t.Run("full disk", func(t *testing.T) { recordOnAFullDisk(t, l) })
	t.Run("flight", func(t *testing.T) { recordAround(t, l) })
	t.Run("no libvirt", recordNothing)
}

// recordAround keeps what is around a call that fails, and nothing else.
func recordAround(t *testing.T, l *posterntest.Libvirtd) {
	defer posterntest.TraceAlone(t)()
	keep, err := record.NewCondition(
		`error && procedure == "remote.domain_lookup_by_name" && client.contains("virsh")`)
	if err != nil {
		t.Fatal(err)
	}
	var kept, reasons []string
	f := record.Flight{
		Name: filepath.Join(t.TempDir(), "libvirt.trace"), Ring: 8 << 20, Keep: keep,
		Kept: func(file, reason string) { kept, reasons = append(kept, file), append(reasons, reason) },
	}
	livetest.Run(t, func() {
		posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
		if out, err := l.Virsh("dominfo", "nosuch"); err == nil {
			t.Errorf("virsh found nosuch: %s", out)
		}
		posterntest.Virsh(t, l.UnixURI(), "domstate", "vm1")
	}, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
		sum, _, err := f.Trace(ctx, both, ready)
		return sum, err
	})
	if len(kept) != 1 || !strings.Contains(reasons[0], "virsh") || !strings.Contains(reasons[0], ": failed, ") {
		t.Fatalf("kept %q because of %q", kept, reasons)
	}
	out := replay(t, kept[0], correlate.Filter{}, format.Config{})
	for _, call := range []string{"domain_get_info", "no domain with matching name 'nosuch'", "domain_get_state"} {
		if !strings.Contains(out, call) {
			t.Errorf("no %s in what is kept:\n%s", call, out)
		}
	}
}

func replayInEachFormat(t *testing.T, l *posterntest.Libvirtd) {
	file := filepath.Join(t.TempDir(), "trace")
	if full := recordTrace(t, record.File{Name: file}, func() {
		posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
		posterntest.Virsh(t, l.UnixURI(), "qemu-monitor-command", "vm1", `{"execute":"query-status"}`)
	}); full {
		t.Error("it is full without a limit")
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the recording: %v, %v", fi.Mode(), err)
	}
	qemu, err := libvirt.Procedures(nil, []string{"qemu.*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		filter correlate.Filter
		config format.Config
		want   string
	}{
		{
			"tree",
			correlate.Filter{Procedures: qemu},
			format.Config{Tree: true, Messages: true},
			`(?s)<S root virsh\[\d+\] +qemu\.domain_monitor_command ok.*query-status → ok`,
		},
		{
			"text",
			correlate.Filter{},
			format.Config{Verbose: true},
			`(?m)  S root virsh\[\d+\] +connected 0x[0-9a-f]+ local=`,
		},
		{"JSON", correlate.Filter{}, format.Config{Format: format.JSON}, `"seen":[1-9]`},
		{
			"script",
			correlate.Filter{},
			format.Config{Format: format.STP},
			`(?s)^  0\.000 begin\n.*msg=remote\.1\.domain_get_info\(reply, ok`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := replay(t, file, c.filter, c.config)
			if !regexp.MustCompile(c.want).MatchString(out) {
				t.Errorf("nothing like %s in\n%.3000s", c.want, out)
			}
			if replay(t, file, c.filter, c.config) != out {
				t.Error("two replays differ")
			}
		})
	}
	before, _ := os.Stat(file)
	_, _, err = record.File{Name: file}.Trace(t.Context(), both, func(*capture.Session) {})
	if after, _ := os.Stat(file); postern.CodeOf(err) != postern.Conflict || postern.HintOf(err) == "" ||
		after.Size() != before.Size() {
		t.Errorf("over a file that is there: %v", err)
	}
}

// recordToTheLimit ends when the file is full, and what is in it can be replayed.
func recordToTheLimit(t *testing.T, l *posterntest.Libvirtd) {
	file, limit := filepath.Join(t.TempDir(), "trace"), int64(32<<10)
	if !recordTrace(t, record.File{Name: file, Limit: limit}, func() {
		for range 20 {
			posterntest.Virsh(t, l.UnixURI(), "dumpxml", "vm1")
		}
	}) {
		t.Error("it is not full")
	}
	if fi, err := os.Stat(file); err != nil || fi.Size() > limit {
		t.Errorf("it has %d bytes: %v", fi.Size(), err)
	}
	if out := replay(t, file, correlate.Filter{}, format.Config{}); !strings.Contains(out, "domain_get_xml_desc") {
		t.Errorf("replayed\n%.2000s", out)
	}
}

// recordOnAFullDisk ends, and says so once.
func recordOnAFullDisk(t *testing.T, l *posterntest.Libvirtd) {
	defer posterntest.TraceAlone(t)()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	done := make(chan error, 1)
	go func() {
		_, _, err := record.File{Name: filepath.Join(dir, "trace")}.Trace(t.Context(), both, func(*capture.Session) {})
		done <- err
	}()
	for len(done) == 0 {
		posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
	}
	if err := <-done; err == nil || strings.Count(err.Error(), "no space left on device") != 1 {
		t.Errorf("it ends with %v", err)
	}
}

// recordNothing leaves no file of a trace that cannot begin.
func recordNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace")
	c := capture.Config{Paths: []string{filepath.Join(t.TempDir(), "none")}}
	if _, _, err := (record.File{Name: file}).Trace(t.Context(), c, func(*capture.Session) {}); err == nil {
		t.Error("it begins")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it leaves a file")
	}
	if _, err := record.Replay(strings.NewReader("no recording at all"), correlate.Filter{}, false,
		nothing{}); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("what is no recording: %v", err)
	}
}

// nothing is a sink.
type nothing struct{}

func (nothing) Event(*event.Event) error { return io.EOF }
func (nothing) Idle() error              { return nil }
