package export

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
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
)

// recordTrace returns the recording of a trace while do runs.
func recordTrace(t *testing.T, c capture.Config, do func()) []byte {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	file := filepath.Join(t.TempDir(), "trace")
	livetest.Run(t, do, func(ctx context.Context, ready func(*capture.Session)) (event.Summary, error) {
		sum, _, err := record.File{Name: file}.Trace(ctx, c, ready)
		return sum, err
	})
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRecordingsAreExported exports what a real libvirtd did.
func TestRecordingsAreExported(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")
	both := capture.Config{What: capture.RPC | capture.Monitor}
	do := func() {
		posterntest.Virsh(t, l.UnixURI(), "suspend", "vm1")
		posterntest.Virsh(t, l.UnixURI(), "resume", "vm1")
	}
	t.Run("capture", func(t *testing.T) { exportCapture(t, recordTrace(t, both, do)) })
	both.Stack = true
	t.Run("profile", func(t *testing.T) { exportProfile(t, l, recordTrace(t, both, do)) })
}

func exportCapture(t *testing.T, recording []byte) {
	var out bytes.Buffer
	sum, written, err := Recording{Format: FormatPcapng}.Write(t.Context(), bytes.NewReader(recording), &out)
	if err != nil || sum.Seen == 0 || !regexp.MustCompile(`^\d+ messages written$`).MatchString(written) ||
		out.Len() < 1000 {
		t.Errorf("%v, %q, %d bytes: %v", sum, written, out.Len(), err)
	}
	_, _, err = Recording{Format: FormatPprof}.Write(t.Context(), bytes.NewReader(recording), &out)
	if postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), "has a stack") ||
		postern.HintOf(err) == "" {
		t.Errorf("a profile without stacks: %v", err)
	}
	_, _, err = Recording{Format: FormatPcapng}.Write(t.Context(), &out, &bytes.Buffer{})
	if postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), "this is no recording") {
		t.Errorf("a capture as a recording: %v", err)
	}
}

// exportProfile has pprof read the stacks of a recording.
func exportProfile(t *testing.T, l *posterntest.Libvirtd, recording []byte) {
	packed := filepath.Join(t.TempDir(), "trace.pb.gz")
	pprof := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(posterntest.Need(t, "go"),
			append([]string{"tool", "pprof"}, append(args, packed)...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("pprof %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	export := func(f correlate.Filter) {
		t.Helper()
		var out bytes.Buffer
		_, written, err := Recording{Format: FormatPprof, Filter: f}.Write(t.Context(), bytes.NewReader(recording),
			&out)
		if err != nil || !regexp.MustCompile(`^stacks of \d+ events? written$`).MatchString(written) {
			t.Fatalf("%q: %v", written, err)
		}
		if err := os.WriteFile(packed, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	export(correlate.Filter{})
	top := pprof("-top", "-cum", "-sample_index=time", "-tagfocus", "side=server")
	if !regexp.MustCompile(`(?m) \d+\.\d+% +virNetServerProgramDispatch$`).MatchString(top) {
		t.Errorf("the daemon's time is not shown:\n%s", top)
	}
	raw := pprof("-raw")
	for _, want := range []string{
		`events/count time/nanoseconds`, `procedure:\[remote\.domain_suspend\]`, `user:\[root\]`, `command:\[virsh`,
		`procedure:\[stop\]`,
		`machine:\[vm1\]`, `pid:\[` + strconv.Itoa(l.PID) + `\]`, `/\S*libvirt\.so\S* [0-9a-f]{40} \[FN\]`,
	} {
		if !regexp.MustCompile(want).MatchString(raw) {
			t.Errorf("nothing like %s in\n%.3000s", want, raw)
		}
	}
	suspend, err := libvirt.Procedures(nil, []string{"domain_suspend"})
	if err != nil {
		t.Fatal(err)
	}
	export(correlate.Filter{Procedures: suspend})
	if raw := pprof("-raw"); strings.Contains(raw, "domain_resume") || !strings.Contains(raw, "domain_suspend") {
		t.Errorf("not only what was chosen:\n%.3000s", raw)
	}
	frame := regexp.MustCompile(`(?m)^ +0x[0-9a-f]+ : virDomainSuspend\+`)
	for _, shown := range []bool{true, false} {
		var out bytes.Buffer
		w, err := format.New(&out, format.Config{Messages: true, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		_, err = record.Replay(bytes.NewReader(recording), correlate.Filter{}, false,
			&format.Replay{Writer: w, Stacks: shown})
		if err != nil || frame.MatchString(out.String()) != shown {
			t.Errorf("a replay with stacks %v: %v\n%.3000s", shown, err, out.String())
		}
	}
}
