package top

import (
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
)

func TestTopOnATerminal(t *testing.T) {
	tally, err := format.NewTally(format.ByProcedure)
	if err != nil {
		t.Fatal(err)
	}
	call := func(proc int32, took time.Duration) {
		e := &event.Event{
			Kind: event.ServerTx, Prog: 0x20008086, Proc: proc, Type: 1, Took: took,
			Call: &event.Call{End: 1, Service: took},
		}
		if err := tally.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		call(1, time.Millisecond)
	}
	call(2, time.Second)
	m := New(Config{By: "procedure", Order: "time", Interval: time.Second}, tally)
	press := func(k string) tea.Cmd {
		_, cmd := m.Update(tea.KeyPressMsg{Text: k, Code: rune(k[0])})
		return cmd
	}
	first := func() string { return strings.Split(m.View().Content, "\n")[2] }
	m.Update(tick{})
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
	m.Update(tick{})
	if m.rows[0].Calls != 10 || !m.paused {
		t.Errorf("paused, but %+v", m.rows[0])
	}
	if cmd := press("q"); cmd == nil {
		t.Error("q does not end it")
	}
}
