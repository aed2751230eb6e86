package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/format"
)

// stream is a buffer that one goroutine writes and another watches.
type stream struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *stream) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// traced runs postern trace with these arguments while do runs, and returns what
// it wrote.
func traced(t *testing.T, do func(), args ...string) string {
	t.Helper()
	defer posterntest.TraceAlone(t)()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs stream
	done := make(chan int, 1)
	go func() { done <- run(ctx, append([]string{"trace"}, args...), strings.NewReader(""), &out, &errs) }()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(errs.String(),
		"ready:"); time.Sleep(5 * time.Millisecond) {
		if len(done) > 0 || time.Now().After(deadline) {
			t.Fatalf("postern trace %v does not get ready: %s", args, errs.String())
		}
	}
	do()
	stop()
	if code := <-done; code != 0 {
		t.Fatalf("postern trace %v: exit %d: %s", args, code, errs.String())
	}
	if !regexp.MustCompile(`(?m)^\d+ events? seen, none lost$`).MatchString(errs.String()) {
		t.Errorf("postern trace %v ends with %q", args, errs.String())
	}
	return out.String()
}

// succeed runs a command that must succeed, and returns what it printed and what it
// said beside.
func succeed(t *testing.T, args ...string) (out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	if code := run(t.Context(), args, strings.NewReader(""), &o, &e); code != 0 {
		t.Fatalf("postern %v: exit %d: %s", args, code, e.String())
	}
	return o.String(), e.String()
}

// checkPrivate fails unless a file has the mode 0600 and holds something.
func checkPrivate(t *testing.T, file string) {
	t.Helper()
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 || fi.Size() == 0 {
		t.Errorf("%s: %v, %v", file, fi, err)
	}
}

// TestTrace gives a real libvirtd to each command, whose packages are tried with all
// that they can.
func TestTrace(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")

	t.Run("flags", func(t *testing.T) { traceFlags(t, l) })
	t.Run("to a file", func(t *testing.T) { traceToFile(t, l) })
	t.Run("record", func(t *testing.T) { traceRecord(t, l) })
	t.Run("probes", func(t *testing.T) { traceProbes(t, l) })
	t.Run("collector", func(t *testing.T) { traceCollector(t, l) })
}

// traceFlags holds what each command and flag shows against the others.
func traceFlags(t *testing.T, l *posterntest.Libvirtd) {
	pid := strconv.Itoa(l.PID)
	do := func() { posterntest.Virsh(t, l.UnixURI(), "qemu-monitor-command", "vm1", `{"execute":"query-status"}`) }
	const call, message = `(?m)^\S+ root virsh\[\d+\] +qemu\.domain_monitor_command\(.* ok `,
		`(?m)^\S+ <S root virsh\[\d+\] +qemu\.domain_monitor_command ok `
	for _, c := range []struct{ args, want, not string }{
		{"rpc", call, message},
		{"rpc --messages", message, call},
		{"rpc --type reply", message, `>S`},
		{"rpc --stack", `(?m)^ +0x[0-9a-f]+ : `, call},
		{"rpc --verbose", `remote\.connect_open\(`, message},
		{"rpc --procedure qemu.* --with qemu", `(?s)qemu\.domain_monitor_command.*query-status → ok`, `connect_`},
		{"rpc --program remote --status ok --user root,daemon", `domain_lookup_by_name`, `domain_monitor_command`},
		{"rpc --json --payload 0 --pid " + pid, `^\{"event":"begin"`, `query-status`},
		{"rpc --format named", ` procedure=domain_monitor_command type=reply status=ok `, `root`},
		{"events --format stp --pid " + pid, `^  0\.000 begin\n`, `done`},
		{"events --slow 1m --pid " + pid, `^$`, `.`},
		{"qemu --domain vm1", `query-status`, `domain_monitor_command`},
		{"qemu --domain vm2", `^$`, `.`},
		{"top --json --interval 1h", `"name":"qemu\.domain_monitor_command","calls":1,`, `REMOTE`},
		{"top --histogram --interval 1h", `(?m)^qemu\.domain_monitor_command +1 .* █`, `CALLS/S`},
		{"top --by client --interval 1h", `(?m)  root virsh$`, `qemu`},
	} {
		t.Run(c.args, func(t *testing.T) {
			out := traced(t, do, strings.Fields(c.args)...)
			if !regexp.MustCompile(c.want).MatchString(out) || regexp.MustCompile(c.not).MatchString(out) {
				t.Errorf("not like %s, or like %s:\n%.3000s", c.want, c.not, out)
			}
			if strings.Contains(out, "\x1b") {
				t.Error("colours without a terminal")
			}
		})
	}
}

// traceToFile writes to a file that others could read, and to standard output.
func traceToFile(t *testing.T, l *posterntest.Libvirtd) {
	file := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(file, bytes.Repeat([]byte("old\n"), 10000), 0o644); err != nil {
		t.Fatal(err)
	}
	do := func() { posterntest.Virsh(t, l.UnixURI(), "domstate", "vm1") }
	if out := traced(t, do, "rpc", "--out", file); out != "" {
		t.Errorf("printed beside: %s", out)
	}
	checkPrivate(t, file)
	if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte("old")) ||
		!bytes.Contains(text, []byte("domain_get_state")) {
		t.Errorf("%v: %.1000s", err, text)
	}
	if out := traced(t, do, "rpc", "--out", "-"); !strings.Contains(out, "domain_get_state") {
		t.Errorf("on standard output: %s", out)
	}
}

// traceRecord records, replays and exports.
func traceRecord(t *testing.T, l *posterntest.Libvirtd) {
	dir := t.TempDir()
	file, exported := filepath.Join(dir, "trace"), filepath.Join(dir, "trace.pcapng")
	traced(t, func() { posterntest.Virsh(t, l.UnixURI(), "suspend", "vm1") }, "record", file)
	checkPrivate(t, file)
	if out, errs := succeed(t, "trace", "replay", file); !strings.Contains(out, "domain_suspend") ||
		!strings.Contains(errs, "events seen, none lost\n") {
		t.Errorf("replay: %s%s", out, errs)
	}
	if _, errs := succeed(t, "trace", "export", "--out", exported, file); !strings.Contains(errs,
		"messages written\n") {
		t.Errorf("export: %s", errs)
	}
	checkPrivate(t, exported)
	page := filepath.Join(dir, "page.html")
	if _, errs := succeed(t, "trace", "report", "--out", page, file); !strings.Contains(errs, "calls written\n") {
		t.Errorf("report: %s", errs)
	}
	checkPrivate(t, page)
	spans := filepath.Join(dir, "spans")
	succeed(t, "trace", "export", "--format", "otlp", "--host", "hv1", "--out", spans, file)
	text, err := os.ReadFile(spans)
	if out, _ := succeed(t, "trace", "export", "--format", "otlp", "--host", "hv1", "--out", "-", file); err != nil ||
		out != string(text) || !strings.Contains(out, `"hv1"`) {
		t.Errorf("--out - is not what a file gets: %v: %.500s", err, out)
	}
	none := filepath.Join(dir, "none")
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"recorded over", []string{"record", file}, 1, file + " is there already\nhint: "},
		{"exported over", []string{"export", "-o", exported, file}, 1, exported + " is there already\nhint: "},
		{
			"without stacks",
			[]string{"export", "--format", "pprof", "-o", none, file},
			2, "has a stack\nhint: record with stacks: postern trace record --stack",
		},
		{"no page", []string{"report", file}, 2, "missing --out"},
		{"no recording", []string{"export", "-o", none, exported}, 2, exported + ": this is no recording"},
		{"no file", []string{"replay", none}, 4, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			var errs bytes.Buffer
			code := run(t.Context(), append([]string{"trace"}, c.args...), strings.NewReader(""), &errs, &errs)
			if code != c.code || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit %d: %s", code, errs.String())
			}
			if _, err := os.Stat(none); err == nil {
				t.Error("it leaves a file")
			}
		})
	}
	full := filepath.Join(dir, "full")
	var out, errs stream
	done := make(chan int, 1)
	defer posterntest.TraceAlone(t)()
	go func() {
		done <- run(t.Context(), []string{"trace", "record", "--max-size", "16KiB", full}, strings.NewReader(""), &out,
			&errs)
	}()
	for len(done) == 0 {
		posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1")
	}
	if code := <-done; code != 0 || !strings.Contains(errs.String(), "the recording has reached --max-size\n") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

func traceProbes(t *testing.T, l *posterntest.Libvirtd) {
	pid := strconv.Itoa(l.PID)
	out, _ := succeed(t, "trace", "probes", "--pid", pid, "--json")
	files := 0
	for lines := json.NewDecoder(strings.NewReader(out)); lines.More(); files++ {
		var f format.Library
		if err := lines.Decode(&f); err != nil {
			t.Fatal(err)
		}
		if f.Error != "" || len(f.Probes) == 0 || len(f.Missing) > 0 || len(f.PIDs) != 1 || f.PIDs[0] != l.PID {
			t.Errorf("%s: %d probes, missing %v, of %v: %s", f.Path, len(f.Probes), f.Missing, f.PIDs, f.Error)
		}
	}
	short, _ := succeed(t, "trace", "probes", "--pid", pid)
	if n := strings.Count(short, "\n  build "); n != files || strings.Contains(short, "no probes") ||
		strings.Contains(short, "0x") {
		t.Errorf("%d files, not %d:\n%s", n, files, short)
	}
	if all, _ := succeed(t, "trace", "probes", "--pid", pid, "--all"); !strings.Contains(all, "\n  no probes: ") ||
		!strings.Contains(all, "0x") {
		t.Errorf("all:\n%s", all)
	}
}

// traceCollector sends spans, live and of a recording.
func traceCollector(t *testing.T, l *posterntest.Libvirtd) {
	var requests atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)
	do := func() { posterntest.Virsh(t, l.UnixURI(), "dominfo", "vm1") }
	if out := traced(t, do, "rpc", "--otlp", srv.URL); out != "" || requests.Load() == 0 {
		t.Errorf("%d requests, printed %s", requests.Load(), out)
	}
	file := filepath.Join(t.TempDir(), "trace")
	traced(t, do, "record", file)
	before := requests.Load()
	if _, errs := succeed(t, "trace", "export", "--format", "otlp", "--to", srv.URL, file); !strings.Contains(errs,
		"spans sent\n") || requests.Load() == before {
		t.Errorf("%d requests: %s", requests.Load()-before, errs)
	}
}
