package top

import (
	"strings"
	"testing"
	"time"

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
	first := func() string { return strings.Split(m.draw(0, false), "\n")[2] }
	m.refresh(time.Now())
	if got := first(); !strings.HasSuffix(got, "remote.connect_close") {
		t.Errorf("by time: %q", got)
	}
	m.key("o")
	if got := first(); !strings.HasSuffix(got, "remote.connect_open") {
		t.Errorf("by calls: %q", got)
	}
	for _, line := range strings.Split(m.draw(40, true), "\n") {
		if len(line) > 40 {
			t.Errorf("wider than the terminal: %q", line)
		}
	}
}
