package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/postern-project/postern/internal/chart"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/tracetest"
	"golang.org/x/net/html"
)

// gathered replays a recording into a gatherer.
func gathered(t testing.TB, recording []byte) *gatherer {
	t.Helper()
	g := newGatherer()
	if _, err := record.Replay(bytes.NewReader(recording), correlate.Filter{}, false, g); err != nil {
		t.Fatal(err)
	}
	g.finish()
	return g
}

// TestPercentilesAreThoseOfTheLines computes percentiles from the JSON lines of a
// recording, one by one.
func TestPercentilesAreThoseOfTheLines(t *testing.T) {
	var recording, lines bytes.Buffer
	if err := traffic(&recording, 8_000); err != nil {
		t.Fatal(err)
	}
	w, err := format.New(&lines, format.Config{Format: format.JSON})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := record.Replay(bytes.NewReader(recording.Bytes()), correlate.Filter{}, false, w); err != nil {
		t.Fatal(err)
	}
	took := map[string][]float64{}
	for line := range bytes.Lines(lines.Bytes()) {
		var m struct {
			Type, Side, Program, Procedure string
			Took                           float64 `json:"took_us"`
		}
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if m.Type == "reply" && m.Side == "server" {
			name := m.Program + "." + m.Procedure
			took[name] = append(took[name], m.Took)
		}
	}
	var v view
	g := gathered(t, recording.Bytes())
	g.latencies(&v)
	if len(v.Procedures) != 5 || len(took) != 5 {
		t.Fatalf("%d procedures on the page, %d in the lines", len(v.Procedures), len(took))
	}
	for _, p := range v.Procedures {
		all := took[p.Name]
		slices.Sort(all)
		if p.Calls != int64(len(all)) {
			t.Errorf("%s: %d calls, %d lines", p.Name, p.Calls, len(all))
		}
		for permille, got := range map[int]time.Duration{
			500: p.P50, 900: p.P90, 990: p.P99, 999: p.P999,
			1000: p.Max,
		} {
			rank := (len(all)*permille + 999) / 1000
			if want := all[rank-1]; fmt.Sprintf("%.3f", want) != fmt.Sprintf("%.3f", float64(got)/1e3) {
				t.Errorf("%s: of 1000 calls the %dth took %v, in the lines %f µs", p.Name, permille, got, want)
			}
		}
	}
}

// TestFlameGraphsHaveWhatPprofHas compares the totals of each function with those of the
// profile that is exported.
func TestFlameGraphsHaveWhatPprofHas(t *testing.T) {
	recording := recorded(t, stacked()...)
	var file bytes.Buffer
	x := export.Recording{Format: export.FormatPprof}
	if _, _, err := x.Write(t.Context(), bytes.NewReader(recording), &file); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&file)
	if err != nil {
		t.Fatal(err)
	}
	g := gathered(t, recording)
	for i, name := range []string{"events", "time"} {
		total := map[string]int64{} // of each function and what it called
		var all int64
		for _, s := range p.Sample {
			all += s.Value[i]
			seen := map[string]bool{}
			for _, l := range s.Location {
				for _, line := range l.Line {
					if f := line.Function.Name; !seen[f] {
						seen[f] = true
						total[f] += s.Value[i]
					}
				}
			}
		}
		var graph chart.Flame
		g.stacks.Each(func(path []string, events int64, took time.Duration) {
			graph.Add(path, []int64{events, int64(took)}[i])
		})
		if graph.Value != all || all == 0 {
			t.Errorf("%s: %d, in the profile %d", name, graph.Value, all)
		}
		for _, f := range functions(&graph) {
			if want, known := total[f.name]; known && f.total != want {
				t.Errorf("%s of %s: %d, in the profile %d", name, f.name, f.total, want)
			} else if known {
				delete(total, f.name)
			}
		}
		if len(total) > 0 {
			t.Errorf("%s: not in the graph: %v", name, total)
		}
	}
}

// stacked are calls with stacks, one of which recurses.
func stacked() []*event.Event {
	frame := func(name string) event.Frame {
		return event.Frame{PC: 0x1000 + uint64(len(name)), Symbol: name, Size: 64, Module: "/lib/libvirt.so"}
	}
	var all []*event.Event
	add := func(e *event.Event, names ...string) {
		for _, n := range names {
			e.Frames = append(e.Frames, frame(n))
		}
		all = append(all, e)
	}
	args := tracetest.Word(5)
	add(tracetest.Message(1, event.ClientTx, 22, 0, 0, 1, args), "send", "virDomainLookupByID", "main")
	add(tracetest.Message(2, event.ServerRx, 22, 0, 0, 1, args), "read", "loop", "loop", "main")
	send := tracetest.Other(3, event.MonitorSend, 815, []uint64{7, 1}, "", `{"execute":"stop","id":"libvirt-1"}`)
	send.TID, send.Comm, send.Domain = 816, "rpc-libvirtd", "vm1"
	add(send, "write", "qemuMonitorStop", "start_thread")
	add(tracetest.Other(7, event.MonitorReply, 815, []uint64{7, 1}, "", `{"return": {}, "id": "libvirt-1"}`),
		"answered")
	add(tracetest.Message(9, event.ServerTx, 22, 1, 1, 1, tracetest.NoDomain), "reply", "dispatch", "start_thread")
	add(tracetest.Message(10, event.ClientRx, 22, 1, 1, 1, tracetest.NoDomain), "receive", "virDomainLookupByID",
		"main")
	return all
}

const attack = `"><script>alert(1)</script><img src=x onerror=alert(2)>'</style></title>`

// hostile are events in which everything that a client or a guest chooses is an attack.
func hostile() []*event.Event {
	args := append(tracetest.String(attack), bytes.Repeat([]byte{7}, 16)...)
	args = append(args, 0, 0, 0, 3)
	refused := bytes.Join([][]byte{
		tracetest.Word(42, 10, 1), tracetest.String("no " + attack),
		tracetest.Word(2, 0, 0, 0, 0, 0, 0xffffffff, 0xffffffff, 0),
	}, nil)
	send := tracetest.Other(3, event.MonitorSend, 815, []uint64{7, 1}, "",
		`{"execute":"<script>","arguments":{"x":"<script>alert(3)</script>"},"id":"libvirt-1"}`)
	send.TID, send.Comm, send.Domain = 816, "rpc-libvirtd", attack
	lost := tracetest.Other(11, event.Lost, 815, []uint64{3})
	lost.Probe, lost.Comm = attack, "<script>"
	warning := tracetest.Other(12, event.Warning, 815, nil, attack)
	events := []*event.Event{
		tracetest.Message(1, event.ServerRx, 23, 0, 0, 1, args), send,
		tracetest.Message(9, event.ServerTx, 23, 1, 1, 1, refused),
		tracetest.Message(10, event.ServerRx, 12, 0, 0, 2, args), lost, warning,
	}
	peer := &event.Peer{PID: 1, User: attack, Command: attack, SASLName: attack, Remote: attack}
	for _, e := range events {
		e.Comm = "<script>"
		if e.Kind.Server() {
			e.Peer = peer
			e.Frames = []event.Frame{{PC: 1, Symbol: attack, Size: 5, Module: attack}}
		}
	}
	return events
}

// TestHostileTextIsText parses the page as a browser does, and finds no element or
// attribute that the texts in a recording have made.
func TestHostileTextIsText(t *testing.T) {
	page := pageOf(t, recorded(t, hostile()...))
	elements, texts := map[string]int{}, ""
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			for name, most := range map[string]int{"script": 1, "style": 1, "title": 100, "img": 0} {
				if n := elements[name]; n > most {
					t.Errorf("%d elements %s", n, name)
				}
			}
			if n := strings.Count(texts, "<script>alert(1)</script>"); n < 10 {
				t.Errorf("the text is shown %d times", n)
			}
			return
		case html.TextToken:
			texts += string(z.Text())
			texts = html.UnescapeString(texts)
		case html.StartTagToken, html.SelfClosingTagToken:
			token := z.Token()
			elements[token.Data]++
			for _, a := range token.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "style" ||
					a.Key == "href" && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("%s has the attribute %s=%q", token.Data, a.Key, a.Val)
				}
			}
		}
	}
}

// TestThePolicyAllowsWhatIsThere compares the hashes of the page's policy with its style
// sheet and script.
func TestThePolicyAllowsWhatIsThere(t *testing.T) {
	page := pageOf(t, recorded(t, stacked()...))
	policy := html.UnescapeString(regexp.MustCompile(`Content-Security-Policy" content="([^"]*)"`).
		FindStringSubmatch(page)[1])
	for _, element := range []string{"style", "script"} {
		text := regexp.MustCompile(`(?s)<` + element + `>(.*)</` + element + `>`).FindStringSubmatch(page)[1]
		if want := element + "-src 'sha256-" + hash(text) + "'"; !strings.Contains(policy, want) {
			t.Errorf("%s is not in %s", want, policy)
		}
	}
	if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %s", policy)
	}
}

// TestWhatThePageSays looks for what a reader of each section needs.
func TestWhatThePageSays(t *testing.T) {
	lost := tracetest.Other(11, event.Lost, 815, []uint64{3})
	lost.Probe = "libvirt:rpc_server_client_msg_rx"
	events := append(stacked(),
		tracetest.Message(12, event.ServerRx, 12, 0, 0, 2, append(tracetest.String("vm2"), make([]byte, 20)...)), lost,
		tracetest.Other(4012, event.Warning, 815, nil, "something to know"))
	page := html.UnescapeString(pageOf(t, recorded(t, events...)))
	for what, want := range map[string]string{
		"the open call's age":    `<td class="n">4.00 s</td><th scope="row">remote.domain_destroy</th>`,
		"its bar, until the end": `class="bar open" x="0.2742%" y="0" width="99.7258%"`,
		"the monitor command":    `class="bar part"`,
		"the failure": `<td class="n">1</td><th scope="row">remote.domain_lookup_by_id</th><td>` +
			`no_domain</td>`,
		"its message":                `no domain with matching id 5`,
		"the median":                 `<td class="n">7.00 ms</td>`,
		"the client":                 `dan virsh[4711]`,
		"the daemon's stack":         `<li>dispatch+0x0 [libvirt.so]</li>`,
		"the client's stack":         `<li>virDomainLookupByID+0x0 [libvirt.so]</li>`,
		"a flame graph by number":    `aria-label="flame graph, By number"`,
		"a flame graph by time":      `aria-label="flame graph, By time"`,
		"what was lost":              `<td class="n">3</td><th scope="row">libvirt:rpc_server_client_msg_rx</th>`,
		"that it was, at the top":    `3 events could not be recorded`,
		"the warning":                `something to know`,
		"the machine's lane":         `<b>vm1</b>`,
		"the command of a slow call": `<th scope="row">stop</th>`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%s: no %s in the page", what, want)
		}
	}
	if strings.Contains(pageOf(t, recorded(t)), "<table") {
		t.Error("tables of a recording without events")
	}
}

// TestALargePageIsBounded holds how much of a large recording is drawn, and that what
// is drawn is the longest.
func TestALargePageIsBounded(t *testing.T) {
	var recording bytes.Buffer
	if err := traffic(&recording, 60_000); err != nil {
		t.Fatal(err)
	}
	page := pageOf(t, recording.Bytes())
	if n := strings.Count(page, `<tr id="call-`); n < maxBars/2 || n > maxBars+slowest {
		t.Errorf("%d of 15000 calls are shown one by one", n)
	}
	if !strings.Contains(page, "15000 calls, ") || len(page) > 3<<20 {
		t.Errorf("%d bytes, whose only lane of a daemon does not count all calls", len(page))
	}
	var v view
	g := gathered(t, recording.Bytes())
	g.latencies(&v)
	g.timelines(&v)
	longest := slices.MaxFunc(v.Procedures, func(a, b procedureView) int { return int(a.Max - b.Max) }).Max
	if v.Slow[0].Took != longest || v.Slow[0].Number == 0 || len(v.Slow) != slowest {
		t.Errorf("the slowest of %d is %+v, not %v", len(v.Slow), v.Slow[0], longest)
	}
}
