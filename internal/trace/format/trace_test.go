package format_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/format"
)

// TestTrace watches a real libvirtd with a virtual machine, and reads what is written
// of it in each format.
func TestTrace(t *testing.T) {
	l := posterntest.StartLibvirtd(t)
	t.Cleanup(l.Stop)
	posterntest.Virsh(t, l.UnixURI(), "start", "vm1")

	t.Run("numbers", func(t *testing.T) { traceNumbers(t, l) })
	t.Run("names", func(t *testing.T) { traceNames(t, l) })
	t.Run("monitor script", func(t *testing.T) { traceRPCScript(t, l) })
	t.Run("events script", func(t *testing.T) { traceEventsScript(t, l) })
	t.Run("qemu script", func(t *testing.T) { traceQEMUScript(t, l) })
	t.Run("text", func(t *testing.T) { traceText(t, l) })
	t.Run("calls", func(t *testing.T) { traceCalls(t, l) })
	t.Run("json", func(t *testing.T) { traceJSON(t, l) })
	t.Run("slow", func(t *testing.T) { traceSlow(t, l) })
	t.Run("secrets", func(t *testing.T) { traceSecrets(t, l) })
	t.Run("probes", func(t *testing.T) { traceProbes(t, l) })
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

// keepalive is the number of the program whose calls a client or a daemon that is kept
// waiting sends between others (src/rpc/virkeepaliveprotocol.x).
const keepalive = "1801807216"

// traceNumbers is the write-up's first script over client and server: every call
// is four lines, sent and read on both sides.
func traceNumbers(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() {
		posterntest.Virsh(t, l.TCPURI(), "domname", "1")
	}, capture.Config{}, format.Config{Format: format.Raw})
	got := lines(out, func(s string) bool { return !strings.Contains(s, "program="+keepalive) })
	if len(got) != 4*len(domname) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), 4*len(domname), out)
	}
	line := regexp.MustCompile(
		`^(client|server)=0x[0-9a-f]+ len=(\d+) program=536903814 version=1 procedure=(\d+) type=(\d) ` +
			`status=0 serial=(\d+)$`)
	for i, text := range got {
		m := line.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("line %d: %s", i, text)
		}
		call := i / 4
		want := [4][2]string{{"client", "0"}, {"server", "0"}, {"server", "1"}, {"client", "1"}}[i%4]
		if m[1] != want[0] || m[4] != want[1] || m[3] != domname[call].number || m[5] != strconv.Itoa(call) {
			t.Errorf("line %d: %s; want %s, type %s, procedure %s, serial %d", i, text, want[0], want[1],
				domname[call].number, call)
		}
	}
}

// traceNames is the write-up's second script, friendly output on both sides.
func traceNames(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() {
		posterntest.Virsh(t, l.TCPURI(), "domname", "1")
	}, capture.Config{}, format.Config{Format: format.Named})
	got := lines(out, func(s string) bool { return !strings.Contains(s, "program=keepalive") })
	if len(got) != 4*len(domname) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), 4*len(domname), out)
	}
	for i, text := range got {
		call := i / 4
		head := [4]string{"T client=0x", "R server=0x", "T server=0x", "R client=0x"}[i%4]
		tail := " program=remote version=1 procedure=" + domname[call].name + " type=" +
			[4]string{"call", "call", "reply", "reply"}[i%4] + " status=ok serial=" + strconv.Itoa(call)
		if !strings.HasPrefix(text, head) || !strings.HasSuffix(text, tail) {
			t.Errorf("line %d: %s; want %s…%s", i, text, head, tail)
		}
	}
}

// traceRPCScript is rpc-monitor.stp's output, its begin line and connections
// included, for the write-up's session: a domain that is not there.
func traceRPCScript(t *testing.T, l *posterntest.Libvirtd) {
	out := tracedUntil(t, func(written func(*regexp.Regexp)) {
		if _, err := posterntest.VirshAt(l.TCPURI(), "domname", "77"); err == nil {
			t.Error("there is a domain 77")
		}
		written(regexp.MustCompile(`\d - S 0x`)) // the daemon hangs up after virsh
	}, capture.Config{}, format.Config{Format: format.STP})
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
				posterntest.Virsh(t, l.UnixURI(), "domname", "1")
			}
		}, capture.Config{}, format.Config{Format: format.STP})
		if ends.MatchString(out) {
			return
		}
	}
	t.Errorf("no client's connection ends in\n%.2000s", out)
}

// traceEventsScript is events.stp's output: handles and timeouts by process.
func traceEventsScript(t *testing.T, l *posterntest.Libvirtd) {
	out := tracedUntil(t, func(written func(*regexp.Regexp)) {
		posterntest.Virsh(t, l.TCPURI(), "version")
		written(regexp.MustCompile(`\d - handle \d`)) // the daemon hangs up after virsh
	}, loop(l), format.Config{Format: format.STP})
	if !strings.HasPrefix(out, "  0.000 begin\n") {
		t.Errorf("begins with %.40q", out)
	}
	for _, want := range []string{
		`\+ handle \d+ \d+ \d+`, `\* handle \d+ \d+`, `> handle \d+ \d+`, `- handle \d+`,
		`\+ timeout \d+ -?\d+`,
	} {
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
		posterntest.Virsh(t, l.UnixURI(), "suspend", "vm1")
		posterntest.Virsh(t, l.UnixURI(), "resume", "vm1")
	}, capture.Config{What: capture.Monitor}, format.Config{Format: format.STP})
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
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "virsh", "-c", l.UnixURI(),
			"domstate", "vm1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("virsh as nobody: %v: %s", err, out)
		}
		_, _ = posterntest.VirshAt(l.UnixURI(), "dominfo", "nope")
	}, capture.Config{What: capture.RPC | capture.Monitor, Tree: true, Queue: true},
		format.Config{Tree: true, Messages: true})
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
		posterntest.Virsh(t, l.UnixURI(), "domstate", "vm1")
		posterntest.Virsh(t, l.TCPURI(), "domstate", "vm1")
	}
	shown := regexp.MustCompile(
		`(?m)^\d\d:\d\d:\d\d\.\d{6} (root virsh\[\d+\]|127\.0\.0\.1;\d+) +` +
			`remote\.domain_lookup_by_name\(name="vm1"\) ok [\d.]+ [µm]s dom={name="vm1"`)
	out := traced(t, do, capture.Config{}, format.Config{})
	if got := len(shown.FindAllString(out, -1)); got != 2 || strings.Contains(out, "connect_open") ||
		strings.Contains(out, "socket") {
		t.Errorf("%d calls in\n%s", got, out)
	}
	if out := traced(t, do, capture.Config{}, format.Config{Verbose: true}); !strings.Contains(out,
		"remote.connect_open(") || !strings.Contains(out, "connected") {
		t.Errorf("no connection in\n%s", out)
	}
}

func traceJSON(t *testing.T, l *posterntest.Libvirtd) {
	out := traced(t, func() {
		posterntest.Virsh(t, l.TLSURI(), "dominfo", "vm1")
	}, capture.Config{Queue: true}, format.Config{Format: format.JSON})
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

// loop watches the event loop of the daemon.
func loop(l *posterntest.Libvirtd) capture.Config {
	return capture.Config{What: capture.Loop, Filter: correlate.Filter{PIDs: []int{l.PID}}}
}

// traceSlow shows how long each dispatch took, and hides the fast ones.
func traceSlow(t *testing.T, l *posterntest.Libvirtd) {
	all := tracedUntil(t, func(written func(*regexp.Regexp)) {
		// This client stays until the trace has seen what its descriptor is.
		c, err := posterntest.DialRPC("unix", l.Socket())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		written(regexp.MustCompile(`\+ handle \d+ fd=\d+ `))
		written(regexp.MustCompile(`< handle \d+ .*[µm]s`))
	}, loop(l), format.Config{})
	if !regexp.MustCompile(`< handle \d+ .*[\d.]+ [µm]s`).MatchString(all) {
		t.Errorf("no dispatch with its time in\n%.1000s", all)
	}
	// A connection is accepted at a handle that was there before.
	if !regexp.MustCompile(`> handle \d+ events=readable \(socket \S*/libvirt-sock\)`).MatchString(all) ||
		regexp.MustCompile(`> handle \d+ events=\S+\n`).MatchString(all) {
		t.Errorf("not all descriptors are named in\n%.1000s", all)
	}
	slow := loop(l)
	slow.Filter.Slow = time.Minute
	none := traced(t, func() { posterntest.Virsh(t, l.UnixURI(), "version") }, slow, format.Config{})
	if got := lines(none, func(s string) bool { return strings.Contains(s, "handle") }); len(got) > 0 {
		t.Errorf("shown though fast: %s", got[0])
	}
}

func traceSecrets(t *testing.T, l *posterntest.Libvirtd) {
	const id = "5ec7e7a1-0000-4000-8000-000000000001"
	const xml = `<secret ephemeral='no' private='no'><uuid>` + id +
		`</uuid><usage type='volume'><volume>/x</volume></usage></secret>`
	file := filepath.Join(t.TempDir(), "secret.xml")
	if err := os.WriteFile(file, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	posterntest.Virsh(t, l.UnixURI(), "secret-define", file)
	const value, encoded = "c2VzYW1lLW9wZW4=", "sesame-open"
	do := func() {
		posterntest.Virsh(t, l.UnixURI(), "secret-set-value", id, value)
		_, _ = posterntest.VirshAt(l.UnixURI(), "qemu-monitor-command", "vm1",
			`{"execute":"set_password","arguments":{"protocol":"vnc","password":"`+encoded+`"}}`)
	}
	for _, f := range []format.Format{format.Text, format.JSON, format.STP} {
		for _, what := range []capture.What{capture.RPC, capture.Monitor} {
			out := traced(t, do, capture.Config{What: what}, format.Config{Format: f, Full: true})
			if strings.Contains(out, encoded) || strings.Contains(out, value) {
				t.Errorf("%v as %q shows the secret:\n%s", what, f, lines(out, func(s string) bool {
					return strings.Contains(s, encoded) || strings.Contains(s, value)
				}))
			}
		}
	}
	if out := traced(t, do, capture.Config{}, format.Config{Full: true, Secrets: true}); !strings.Contains(out,
		encoded) {
		t.Errorf("the secret is not shown when asked for:\n%s", out)
	}
}

// traceProbes lists the daemon's files.
func traceProbes(t *testing.T, l *posterntest.Libvirtd) {
	libs, err := capture.Find(capture.Config{Filter: correlate.Filter{PIDs: []int{l.PID}}})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	bare := 0
	var text strings.Builder
	for _, f := range format.Libraries(libs) {
		if err := f.WriteText(&text, true); err != nil {
			t.Fatal(err)
		}
		if f.Build == "" || !slices.Equal(f.PIDs, []int{l.PID}) {
			t.Errorf("%s: build %q, processes %v", f.Path, f.Build, f.PIDs)
		}
		if strings.Contains(f.Path, "libvirt_driver_network") {
			bare++
			if f.Error == "" || len(f.Probes) > 0 {
				t.Errorf("%s: %q, %d probes", f.Path, f.Error, len(f.Probes))
			}
			continue
		}
		for _, p := range f.Probes {
			counts[p.Name]++
		}
		if f.Error == "" && (len(f.Probes) == 0 || len(f.Missing) > 0) {
			t.Errorf("%s: %d probes, missing %v", f.Path, len(f.Probes), f.Missing)
		}
	}
	want := map[string]int{
		"libvirt:rpc_client_msg_tx_queue": 2, "libvirt:qemu_monitor_send_msg": 1,
		"libvirt:rpc_server_client_auth_allow": 2,
	}
	for name, n := range want {
		if counts[name] != n {
			t.Errorf("%s is in %d places, not %d", name, counts[name], n)
		}
	}
	for _, line := range []string{
		`libvirt_driver_network.*\n.*\n.*\n  no probes: `, `(?m)^  mapped by ` + strconv.Itoa(l.PID) + `$`,
		`(?m)^  \d+ probes in \d+ places$`,
		`(?m)^    libvirt:qemu_monitor_send_msg +0x[0-9a-f]+  \S`,
	} {
		if !regexp.MustCompile(line).MatchString(text.String()) {
			t.Errorf("nothing like %s in\n%.3000s", line, text.String())
		}
	}
	if bare == 0 {
		t.Error("no file without probes was found")
	}
}
