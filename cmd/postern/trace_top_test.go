package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
)

// traceTop counts what virsh calls: each call once, though client and daemon are
// both watched.
func traceTop(t *testing.T, l *posterntest.Libvirtd) {
	work := func() {
		for range 3 {
			virsh(t, l.UnixURI(), "domname", "1")
		}
		if out, err := exec.Command("virsh", "-c", l.TCPURI(), "dominfo", "nosuch").CombinedOutput(); err == nil {
			t.Errorf("virsh found nosuch: %s", out)
		}
	}
	type document struct {
		By   string
		Lost int
		Rows []topRow
	}
	last := func(out string) (d document) {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &d); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		return d
	}
	d := last(traced(t, work, "top", "--json", "--interval", "1h"))
	rows := map[string]topRow{}
	for _, r := range d.Rows {
		rows[r.Name] = r
		if r.Max == 0 || r.P50 > r.P99 || r.P99 > r.Max || r.Took < r.Max || r.Queued > r.Took {
			t.Errorf("times of %+v", r)
		}
	}
	if d.Lost != 0 || rows["remote.domain_lookup_by_id"].Calls != 3 || rows["remote.connect_open"].Calls != 4 {
		t.Errorf("%+v", d)
	}
	if r := rows["remote.domain_lookup_by_name"]; r.Calls != 1 || r.Errors != 1 {
		t.Errorf("the call that failed: %+v", r)
	}
	out := traced(t, work, "top", "--by", "client", "--order", "calls", "--interval", "1h")
	if got := strings.Split(out, "\n"); len(got) != 4 || !strings.HasSuffix(got[0], "CLIENT") || !strings.HasSuffix(got[1], "  root virsh") || !strings.HasSuffix(got[2], "  127.0.0.1") {
		t.Errorf("by client:\n%s", out)
	} else if f := strings.Fields(got[1]); f[len(f)-3] == "0.0%" {
		t.Errorf("nobody waited for a worker:\n%s", out)
	}
	info := func() { virsh(t, l.UnixURI(), "dominfo", "vm1") }
	if out := traced(t, info, "top", "--by", "domain", "--interval", "1h"); !strings.Contains(out, "  vm1\n") {
		t.Errorf("by domain:\n%s", out)
	}
}

func TestTopOnATerminal(t *testing.T) {
	tally, err := format.NewTally(format.ByProcedure)
	if err != nil {
		t.Fatal(err)
	}
	call := func(proc int32, took time.Duration) {
		e := &event.Event{Kind: event.ServerTx, Prog: 0x20008086, Proc: proc, Type: 1, Took: took, Call: &event.Call{End: 1, Service: took}}
		if err := tally.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		call(1, time.Millisecond)
	}
	call(2, time.Second)
	m := &topModel{topOptions: &topOptions{by: "procedure", order: "time", interval: time.Second}, tally: tally, began: time.Now()}
	press := func(k string) tea.Cmd {
		_, cmd := m.Update(tea.KeyPressMsg{Text: k, Code: rune(k[0])})
		return cmd
	}
	first := func() string { return strings.Split(m.View().Content, "\n")[2] }
	m.Update(topTick{})
	if got := first(); !strings.HasSuffix(got, "remote.connect_close") {
		t.Errorf("by time: %q", got)
	}
	press("o")
	if got := first(); !strings.HasSuffix(got, "remote.connect_open") {
		t.Errorf("by calls: %q", got)
	}
	m.Update(tea.WindowSizeMsg{Width: 40, Height: 2})
	for _, line := range strings.Split(m.View().Content, "\n") {
		if len(line) > 40 {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
	if n := strings.Count(m.View().Content, "\n"); n != 1 {
		t.Errorf("%d lines on two", n+1)
	}
	press(" ")
	call(1, time.Millisecond)
	m.Update(topTick{})
	if m.rows[0].Calls != 10 || !m.held {
		t.Errorf("held, but %+v", m.rows[0])
	}
	if cmd := press("q"); cmd == nil {
		t.Error("q does not end it")
	}
}
