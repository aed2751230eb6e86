package top

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
)

// TestHistogram draws calls of two procedures on 80 columns.
func TestHistogram(t *testing.T) {
	tally, err := format.NewTally(format.ByProcedure)
	if err != nil {
		t.Fatal(err)
	}
	for proc, times := range map[int32][]time.Duration{
		1: {12 * time.Microsecond, 12 * time.Microsecond, 300 * time.Microsecond, 2 * time.Second},
		2: {40 * time.Millisecond},
	} {
		for _, d := range times {
			e := &event.Event{
				Kind: event.ServerTx, Prog: 0x20008086, Proc: proc, Type: 1, Took: d,
				Call: &event.Call{End: 1, Service: d},
			}
			if err := tally.Event(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := New(Config{By: "procedure", Order: "name", Interval: time.Second, Histogram: true}, tally)
	m.refresh(time.Now())
	var b strings.Builder
	m.table(&b)
	want := "" +
		"PROCEDURE                        CALLS      P50      P99 10µs    1ms 10ms    1s\n" +
		"remote.connect_close                 1  40.0 ms  40.0 ms               █\n" +
		"remote.connect_open                  4  12.3 µs   2.00 s █    ▄               ▄\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if got := clip("remote.connect_domain_event_deregister_any", 29); got != "…main_event_deregister_any" &&
		len([]rune(got)) != 29 {
		t.Errorf("clipped: %q", got)
	}
}
