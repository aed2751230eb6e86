package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/format"
	"golang.org/x/sys/unix"
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
	for deadline := time.Now().Add(time.Minute); !strings.Contains(errs.String(), "ready:"); time.Sleep(5 * time.Millisecond) {
		if len(done) > 0 || time.Now().After(deadline) {
			t.Fatalf("postern trace %v does not get ready: %s", args, errs.String())
		}
	}
	do()
	stop()
	if code := <-done; code != 0 {
		t.Fatalf("postern trace %v: exit %d: %s", args, code, errs.String())
	}
	if !regexp.MustCompile(`(?m)^\d+ events seen, none lost$`).MatchString(errs.String()) {
		t.Errorf("postern trace %v ends with %q", args, errs.String())
	}
	return out.String()
}

// lines returns the lines of s that hold.
func lines(s string, hold func(string) bool) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimRight(line, "\n"); hold(line) {
			out = append(out, line)
		}
	}
	return out
}

func virsh(t *testing.T, uri string, args ...string) string {
	t.Helper()
	out, err := posterntest.VirshAt(uri, args...)
	if err != nil {
		t.Fatalf("virsh %v: %v: %s", args, err, out)
	}
	return out
}

// TestTrace watches a real libvirtd, with a virtual machine, through the command
// line.
func TestTrace(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	virsh(t, l.UnixURI(), "start", "vm1")

	t.Run("numbers", func(t *testing.T) { traceNumbers(t, l) })
	t.Run("names", func(t *testing.T) { traceNames(t, l) })
	t.Run("monitor script", func(t *testing.T) { traceRPCScript(t, l) })
	t.Run("events script", func(t *testing.T) { traceEventsScript(t, l) })
	t.Run("qemu script", func(t *testing.T) { traceQEMUScript(t, l) })
	t.Run("text", func(t *testing.T) { traceText(t, l) })
	t.Run("calls", func(t *testing.T) { traceCalls(t, l) })
	t.Run("json", func(t *testing.T) { traceJSON(t, l) })
	t.Run("filters", func(t *testing.T) { traceFilters(t, l) })
	t.Run("record and replay", func(t *testing.T) { traceRecord(t, l) })
	t.Run("profile", func(t *testing.T) { traceProfile(t, l) })
	t.Run("record on a full disk", func(t *testing.T) { traceRecordFull(t, l) })
	t.Run("probes", func(t *testing.T) { traceProbes(t, l) })
	t.Run("slow", func(t *testing.T) { traceSlow(t, l) })
	t.Run("secrets", func(t *testing.T) { traceSecrets(t, l) })
	t.Run("top", func(t *testing.T) { traceTop(t, l) })
}

// The procedures of a virsh domname session today, by number and name: the
// write-up's were auth_list, open, get_uri and close.
var domname = []struct{ number, name string }{
	{"66", "auth_list"},
	{"60", "connect_supports_feature"},
	{"1", "connect_open"},
	{"60", "connect_supports_feature"},
	{"60", "connect_supports_feature"},
	{"360", "connect_register_close_callback"},
	{"22", "domain_lookup_by_id"},
	{"361", "connect_unregister_close_callback"},
	{"2", "connect_close"},
}

// traceNumbers is the write-up's first script over client and server: every call
// is four lines, sent and read on both sides.
func traceNumbers(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() { virsh(t, l.TCPURI(), "domname", "1") }, "rpc", "--format", "raw")
	got := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(got) != 4*len(domname) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), 4*len(domname), out)
	}
	line := regexp.MustCompile(`^(client|server)=0x[0-9a-f]+ len=(\d+) program=536903814 version=1 procedure=(\d+) type=(\d) status=0 serial=(\d+)$`)
	for i, text := range got {
		m := line.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("line %d: %s", i, text)
		}
		call := i / 4
		want := [4][2]string{{"client", "0"}, {"server", "0"}, {"server", "1"}, {"client", "1"}}[i%4]
		if m[1] != want[0] || m[4] != want[1] || m[3] != domname[call].number || m[5] != strconv.Itoa(call) {
			t.Errorf("line %d: %s; want %s, type %s, procedure %s, serial %d", i, text, want[0], want[1], domname[call].number, call)
		}
	}
}

// traceNames is the write-up's second script, friendly output on both sides.
func traceNames(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() { virsh(t, l.TCPURI(), "domname", "1") }, "rpc", "--format", "named")
	got := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(got) != 4*len(domname) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), 4*len(domname), out)
	}
	for i, text := range got {
		call := i / 4
		head := [4]string{"T client=0x", "R server=0x", "T server=0x", "R client=0x"}[i%4]
		tail := " program=remote version=1 procedure=" + domname[call].name + " type=" + [4]string{"call", "call", "reply", "reply"}[i%4] + " status=ok serial=" + strconv.Itoa(call)
		if !strings.HasPrefix(text, head) || !strings.HasSuffix(text, tail) {
			t.Errorf("line %d: %s; want %s…%s", i, text, head, tail)
		}
	}
}

// traceRPCScript is rpc-monitor.stp's output, its begin line and connections
// included, for the write-up's session: a domain that is not there.
func traceRPCScript(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() {
		if _, err := posterntest.VirshAt(l.TCPURI(), "domname", "77"); err == nil {
			t.Error("there is a domain 77")
		}
	}, "rpc", "--format", "stp")
	if !strings.HasPrefix(out, "  0.000 begin\n") {
		t.Errorf("begins with %.40q", out)
	}
	for _, want := range []string{
		`C \+ 0x[0-9a-f]+ +local=127\.0\.0\.1;\d+ remote=127\.0\.0\.1;\d+`,
		`\+ S 0x[0-9a-f]+ +local=127\.0\.0\.1;\d+ remote=127\.0\.0\.1;\d+`,
		`C > 0x[0-9a-f]+ +msg=remote\.1\.auth_list\(call, ok, 0\) len=28`,
		`> S 0x[0-9a-f]+ +msg=remote\.1\.auth_list\(call, ok, 0\) len=28`,
		`< S 0x[0-9a-f]+ +msg=remote\.1\.auth_list\(reply, ok, 0\) len=36`,
		`C < 0x[0-9a-f]+ +msg=remote\.1\.auth_list\(reply, ok, 0\) len=36`,
		`< S 0x[0-9a-f]+ +msg=remote\.1\.domain_lookup_by_id\(reply, error, 6\) len=\d+`,
		`C < 0x[0-9a-f]+ +msg=remote\.1\.connect_close\(reply, ok, 8\) len=28`,
		`- S 0x[0-9a-f]+ +local=127\.0\.0\.1;\d+ remote=127\.0\.0\.1;\d+`,
	} {
		if n := len(regexp.MustCompile(`(?m)^ *\d+\.\d{3} `+want+`$`).FindAllString(out, -1)); n != 1 {
			t.Errorf("%d lines like %s in\n%s", n, want, out)
		}
	}
	// A virsh that ends may be faster than its own end of the connection.
	ends := regexp.MustCompile(`(?m)^ *\d+\.\d{3} C - 0x[0-9a-f]+ +local=\S* remote=\S*$`)
	for range 10 {
		out = traced(t, func() {
			for range 10 {
				virsh(t, l.UnixURI(), "domname", "1")
			}
		}, "rpc", "--format", "stp")
		if ends.MatchString(out) {
			return
		}
	}
	t.Errorf("no client's connection ends in\n%.2000s", out)
}

// traceEventsScript is events.stp's output: handles and timeouts by process.
func traceEventsScript(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() { virsh(t, l.TCPURI(), "version") }, "events", "--format", "stp", "--pid", strconv.Itoa(l.PID))
	if !strings.HasPrefix(out, "  0.000 begin\n") {
		t.Errorf("begins with %.40q", out)
	}
	for _, want := range []string{`\+ handle \d+ \d+ \d+`, `\* handle \d+ \d+`, `> handle \d+ \d+`, `- handle \d+`, `\+ timeout \d+ -?\d+`} {
		if !regexp.MustCompile(`(?m)^ *\d+\.\d{3} ` + strconv.Itoa(l.PID) + ` ` + want + `$`).MatchString(out) {
			t.Errorf("no line like %s in\n%.2000s", want, out)
		}
	}
	if strings.Contains(out, "done") {
		t.Error("the script knew no ends of dispatches")
	}
}

// traceQEMUScript is qemu-monitor.stp's output.
func traceQEMUScript(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() {
		virsh(t, l.UnixURI(), "suspend", "vm1")
		virsh(t, l.UnixURI(), "resume", "vm1")
	}, "qemu", "--format", "stp")
	for _, want := range []string{
		`> 0x[0-9a-f]+ \{"execute":"stop","id":"libvirt-\d+"\}`,
		`< 0x[0-9a-f]+ \{"return": \{\}, "id": "libvirt-\d+"\}`,
		`! 0x[0-9a-f]+ \{"timestamp": \{"seconds": \d+, "microseconds": \d+\}, "event": "STOP"\}`,
		`> 0x[0-9a-f]+ \{"execute":"cont","id":"libvirt-\d+"\}`,
		`! 0x[0-9a-f]+ \{"timestamp": \{"seconds": \d+, "microseconds": \d+\}, "event": "RESUME"\}`,
	} {
		if !regexp.MustCompile(`(?m)^ *\d+\.\d{3} ` + want + `$`).MatchString(out) {
			t.Errorf("no line like %s in\n%s", want, out)
		}
	}
}

func traceText(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() {
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "virsh", "-c", l.UnixURI(), "domstate", "vm1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("virsh as nobody: %v: %s", err, out)
		}
		_, _ = posterntest.VirshAt(l.UnixURI(), "dominfo", "nope")
	}, "rpc", "--with", "qemu", "--messages")
	for _, want := range []string{
		`>S nobody virsh\[\d+\] +remote\.domain_lookup_by_name\(name="vm1"\)`,
		`<S nobody virsh\[\d+\] +remote\.domain_get_state ok [\d.]+ [µm]s state=running`,
		`<S root virsh\[\d+\] +remote\.domain_lookup_by_name failed .*no domain with matching name 'nope'`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no line like %s in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours without a terminal")
	}
}

// traceCalls shows a line a call, also of clients over TCP, and what it hides.
func traceCalls(t *testing.T, l *posterntest.Libvirtd) {
	do := func() {
		virsh(t, l.UnixURI(), "domstate", "vm1")
		virsh(t, l.TCPURI(), "domstate", "vm1")
	}
	shown := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{6} (root virsh\[\d+\]|127\.0\.0\.1;\d+) +remote\.domain_lookup_by_name\(name="vm1"\) ok [\d.]+ [µm]s dom={name="vm1"`)
	out := traced(t, do, "rpc")
	if got := len(shown.FindAllString(out, -1)); got != 2 || strings.Contains(out, "connect_open") || strings.Contains(out, "socket") {
		t.Errorf("%d calls in\n%s", got, out)
	}
	if out := traced(t, do, "rpc", "--verbose"); !strings.Contains(out, "remote.connect_open(") || !strings.Contains(out, "connected") {
		t.Errorf("no connection in\n%s", out)
	}
}

func traceJSON(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() { virsh(t, l.TLSURI(), "dominfo", "vm1") }, "rpc", "--json")
	events := map[string]int{}
	for line := range strings.Lines(out) {
		var e struct {
			Event, Side, Procedure, Type string
			Peer                         struct {
				TLS string `json:"tls_name"`
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		events[e.Event]++
		if e.Event == "message" && e.Side == "server" && !strings.Contains(line, "CN=tester") {
			t.Fatalf("the client is not named: %s", line)
		}
	}
	if events["begin"] != 1 || events["end"] != 1 || events["message"] < 40 {
		t.Errorf("%v", events)
	}
}

// traceFilters holds each filter against what it must and must not show.
func traceFilters(t *testing.T, l *posterntest.Libvirtd) {
	message := func(s string) bool { return strings.Contains(s, "remote.") }
	for _, c := range []struct {
		name string
		args []string
		all  string // every message is like this
		some string // one at least is like this
	}{
		{"procedure", []string{"--procedure", "domain_get_*"}, `remote\.domain_get_`, `<S .*domain_get_info ok`},
		{"program", []string{"--program", "remote", "--procedure", "*_lookup_*"}, `lookup`, `domain_lookup_by_name\(`},
		{"type", []string{"--type", "reply"}, `^\S+ (<S|C<) `, `domain_get_info ok`},
		{"status", []string{"--status", "error"}, `failed`, `no domain with matching name 'nope'`},
		{"errors", []string{"--errors"}, `domain_lookup_by_name`, `no domain with matching name 'nope'`},
		{"domain", []string{"--domain", "vm?"}, `vm1|domain_`, `domain_get_info ok`},
		{"pid", []string{"--pid", strconv.Itoa(l.PID)}, `[<>]S`, `>S`},
		{"user", []string{"--user", "root"}, `root|C[<>]`, `>S root`},
		{"slower", []string{"--slower", "1ns"}, `.`, `ok`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := traced(t, func() {
				virsh(t, l.UnixURI(), "dominfo", "vm1")
				_, _ = posterntest.VirshAt(l.UnixURI(), "dominfo", "nope")
			}, append([]string{"rpc", "--messages"}, c.args...)...)
			got := lines(out, message)
			for _, line := range got {
				if !regexp.MustCompile(c.all).MatchString(line) {
					t.Errorf("shows %s", line)
				}
			}
			if !regexp.MustCompile(c.some).MatchString(strings.Join(got, "\n")) {
				t.Errorf("nothing like %s in\n%s", c.some, out)
			}
		})
	}
	for _, args := range [][]string{{"--user", "daemon"}, {"--slower", "1h"}, {"--domain", "vm2"}, {"--connection", "0x1"}} {
		out := traced(t, func() { virsh(t, l.UnixURI(), "dominfo", "vm1") }, append([]string{"rpc"}, args...)...)
		if got := lines(out, message); len(got) > 0 {
			t.Errorf("%v shows %s", args, got[0])
		}
	}
}

func traceRecord(t *testing.T, l *posterntest.Libvirtd) {
	file := filepath.Join(t.TempDir(), "trace")
	traced(t, func() {
		virsh(t, l.UnixURI(), "dominfo", "vm1")
		virsh(t, l.UnixURI(), "qemu-monitor-command", "vm1", `{"execute":"query-status"}`)
	}, "record", file)
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the recording: %v, %v", fi.Mode(), err)
	}
	replay := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"trace", "replay", file}, args...), strings.NewReader(""), &out, &errs); code != 0 {
			t.Fatalf("replay %v: exit %d: %s", args, code, errs.String())
		}
		return out.String()
	}
	if out := replay("--with", "qemu", "--messages", "--procedure", "qemu.*"); !regexp.MustCompile(`(?s)<S root virsh\[\d+\] +qemu\.domain_monitor_command ok.*query-status → ok`).MatchString(out) {
		t.Errorf("no tree in\n%s", out)
	}
	if out := replay("--format", "text", "--verbose"); !regexp.MustCompile(`(?m)  S root virsh\[\d+\] +connected 0x[0-9a-f]+ local=`).MatchString(out) {
		t.Errorf("no connection with its address in\n%.3000s", out)
	}
	if out := replay("--json"); !strings.Contains(out, `"seen":`) || strings.Contains(out, `"seen":0,`) {
		t.Errorf("as JSON:\n%.500s", out)
	}
	if out := replay("--format", "stp"); !strings.HasPrefix(out, "  0.000 begin\n") || !strings.Contains(out, "msg=remote.1.domain_get_info(reply, ok") {
		t.Errorf("as stp:\n%.500s", out)
	}
	var errs bytes.Buffer
	capture := filepath.Join(t.TempDir(), "trace.pcapng")
	if code := run(t.Context(), []string{"trace", "export", "-o", capture, file}, strings.NewReader(""), &errs, &errs); code != 0 || !strings.Contains(errs.String(), "messages written") {
		t.Errorf("export: exit %d: %s", code, errs.String())
	}
	if fi, err := os.Stat(capture); err != nil || fi.Mode().Perm() != 0o600 || fi.Size() < 1000 {
		t.Errorf("the capture: %v, %v", fi, err)
	}
	for _, args := range [][]string{{"record", file}, {"export", "-o", capture, file}} {
		var errs bytes.Buffer
		code := run(t.Context(), append([]string{"trace"}, args...), strings.NewReader(""), &errs, &errs)
		if want := args[len(args)-1]; code == 0 || args[0] == "record" && !strings.Contains(errs.String(), want+" is there already\nhint: ") {
			t.Errorf("%v over a file that is there: exit %d: %s", args, code, errs.String())
		}
	}
	errs.Reset()
	profile := filepath.Join(t.TempDir(), "none.pb.gz")
	if code := run(t.Context(), []string{"trace", "export", "--format", "pprof", "-o", profile, file}, strings.NewReader(""), &errs, &errs); code == 0 || !strings.Contains(errs.String(), "has a stack\nhint: ") {
		t.Errorf("a profile without stacks: exit %d: %s", code, errs.String())
	}
	if _, err := os.Stat(profile); err == nil {
		t.Error("an empty profile leaves a file")
	}
	errs.Reset()
	none := filepath.Join(t.TempDir(), "none.pcapng")
	if code := run(t.Context(), []string{"trace", "export", "-o", none, capture}, strings.NewReader(""), &errs, &errs); code == 0 || !strings.Contains(errs.String(), capture+": this is no recording") {
		t.Errorf("a capture as a recording: exit %d: %s", code, errs.String())
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("an export that failed leaves a file")
	}
	if first, again := replay(), replay(); first != again {
		t.Error("two replays differ")
	}
}

// traceProfile records stacks, shows them, and has pprof read them.
func traceProfile(t *testing.T, l *posterntest.Libvirtd) {
	pprof := func(args ...string) string {
		out, err := exec.Command(posterntest.Need(t, "go"), append([]string{"tool", "pprof"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("pprof %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	dir := t.TempDir()
	file, packed := filepath.Join(dir, "trace"), filepath.Join(dir, "trace.pb.gz")
	traced(t, func() {
		virsh(t, l.UnixURI(), "suspend", "vm1")
		virsh(t, l.UnixURI(), "resume", "vm1")
	}, "record", "--stack", file)
	export := func(args ...string) {
		t.Helper()
		var errs bytes.Buffer
		args = append([]string{"trace", "export", "--format", "pprof", "-o", packed}, args...)
		if code := run(t.Context(), append(args, file), strings.NewReader(""), &errs, &errs); code != 0 || !strings.Contains(errs.String(), "stacks of ") {
			t.Fatalf("export: exit %d: %s", code, errs.String())
		}
	}
	export()
	if top := pprof("-top", "-cum", "-sample_index=time", "-tagfocus", "side=server", packed); !regexp.MustCompile(`(?m) \d+\.\d+% +virNetServerProgramDispatch$`).MatchString(top) {
		t.Errorf("the daemon's time is not shown:\n%s", top)
	}
	raw := pprof("-raw", packed)
	for _, want := range []string{`events/count time/nanoseconds`, `procedure:\[remote\.domain_suspend\]`, `user:\[root\]`, `command:\[virsh`, `procedure:\[stop\]`, `machine:\[vm1\]`, `pid:\[` + strconv.Itoa(l.PID) + `\]`, `/\S*libvirt\.so\S* [0-9a-f]{40} \[FN\]`} {
		if !regexp.MustCompile(want).MatchString(raw) {
			t.Errorf("nothing like %s in\n%.3000s", want, raw)
		}
	}
	if err := os.Remove(packed); err != nil {
		t.Fatal(err)
	}
	export("--procedure", "domain_suspend")
	if raw := pprof("-raw", packed); strings.Contains(raw, "domain_resume") || !strings.Contains(raw, "domain_suspend") {
		t.Errorf("not only what was chosen:\n%.3000s", raw)
	}
	frame := regexp.MustCompile(`(?m)^ +0x[0-9a-f]+ : virDomainSuspend\+`)
	for _, args := range [][]string{{"--stack"}, nil} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"trace", "replay", file}, args...), strings.NewReader(""), &out, &errs); code != 0 || frame.MatchString(out.String()) != (args != nil) {
			t.Errorf("replay %v: exit %d: %s\n%.3000s", args, code, errs.String(), out.String())
		}
	}
}

// traceRecordFull records onto a file system that has no room: it ends, and says
// so once.
func traceRecordFull(t *testing.T, l *posterntest.Libvirtd) {
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
	var out, errs stream
	done := make(chan int, 1)
	go func() {
		done <- run(t.Context(), []string{"trace", "record", filepath.Join(dir, "trace")}, strings.NewReader(""), &out, &errs)
	}()
	for len(done) == 0 {
		virsh(t, l.UnixURI(), "dominfo", "vm1")
	}
	if code := <-done; code != 1 || strings.Count(errs.String(), "no space left on device") != 1 {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}

func traceProbes(t *testing.T, l *posterntest.Libvirtd) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"trace", "probes", "--pid", strconv.Itoa(l.PID), "--json"}, strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	var files []format.Library
	for lines := json.NewDecoder(&out); lines.More(); {
		var f format.Library
		if err := lines.Decode(&f); err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	counts := map[string]int{}
	for _, f := range files {
		if f.Build == "" || len(f.PIDs) != 1 || f.PIDs[0] != l.PID {
			t.Errorf("%s: build %q, processes %v", f.Path, f.Build, f.PIDs)
		}
		for _, p := range f.Probes {
			counts[p.Name]++
		}
		if f.Error != "" || len(f.Probes) == 0 || len(f.Missing) > 0 {
			t.Errorf("%s: %d probes, missing %v: %s", f.Path, len(f.Probes), f.Missing, f.Error)
		}
	}
	if counts["libvirt:rpc_client_msg_tx_queue"] != 2 || counts["libvirt:qemu_monitor_send_msg"] != 1 || counts["libvirt:rpc_server_client_auth_allow"] != 2 {
		t.Errorf("%v", counts)
	}
	out.Reset()
	if code := run(t.Context(), []string{"trace", "probes", "--pid", strconv.Itoa(l.PID), "--all"}, strings.NewReader(""), &out, &errs); code != 0 ||
		!regexp.MustCompile(`libvirt_driver_network.*\n.*\n.*\n  no probes: `).MatchString(out.String()) {
		t.Errorf("exit %d: %s%s", code, out.String(), errs.String())
	}
}

// traceSlow shows how long each dispatch took, and hides the fast ones.
func traceSlow(t *testing.T, l *posterntest.Libvirtd) {
	all := traced(t, func() { virsh(t, l.UnixURI(), "version") }, "events", "--pid", strconv.Itoa(l.PID))
	if !regexp.MustCompile(`< handle \d+ .*[\d.]+ [µm]s`).MatchString(all) {
		t.Errorf("no dispatch with its time in\n%.1000s", all)
	}
	// Whoever connects is taken at a handle that was there before.
	if !regexp.MustCompile(`> handle \d+ events=readable \(socket \S*/libvirt-sock\)`).MatchString(all) || regexp.MustCompile(`> handle \d+ events=\S+\n`).MatchString(all) {
		t.Errorf("not all descriptors are told in\n%.1000s", all)
	}
	none := traced(t, func() { virsh(t, l.UnixURI(), "version") }, "events", "--pid", strconv.Itoa(l.PID), "--slow", "1m")
	if got := lines(none, func(s string) bool { return strings.Contains(s, "handle") }); len(got) > 0 {
		t.Errorf("shown though fast: %s", got[0])
	}
}

func traceSecrets(t *testing.T, l *posterntest.Libvirtd) {
	const id = "5ec7e7a1-0000-4000-8000-000000000001"
	const xml = `<secret ephemeral='no' private='no'><uuid>` + id + `</uuid><usage type='volume'><volume>/x</volume></usage></secret>`
	file := filepath.Join(t.TempDir(), "secret.xml")
	if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh(t, l.UnixURI(), "secret-define", file)
	const value, encoded = "c2VzYW1lLW9wZW4=", "sesame-open"
	do := func() {
		virsh(t, l.UnixURI(), "secret-set-value", id, value)
		_, _ = posterntest.VirshAt(l.UnixURI(), "qemu-monitor-command", "vm1", `{"execute":"set_password","arguments":{"protocol":"vnc","password":"`+encoded+`"}}`)
	}
	for _, format := range []string{"text", "json", "stp"} {
		for _, what := range []string{"rpc", "qemu"} {
			out := traced(t, do, what, "--format", format, "--full")
			if strings.Contains(out, encoded) || strings.Contains(out, value) {
				t.Errorf("%s as %s shows the secret:\n%s", what, format, lines(out, func(s string) bool { return strings.Contains(s, encoded) || strings.Contains(s, value) }))
			}
		}
	}
	if out := traced(t, do, "rpc", "--full", "--show-secrets"); !strings.Contains(out, encoded) {
		t.Errorf("the secret is not shown when asked for:\n%s", out)
	}
}
