package format

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// TestAForwardedCallIsOneCall: a proxy makes a call at another daemon, which knows the
// client too. It is shown and counted there.
func TestAForwardedCallIsOneCall(t *testing.T) {
	const destroy = 12
	for name, c := range map[string]struct {
		forwarded bool
		config    Config
		lines     int
	}{
		"forwarded":                  {true, Config{}, 0},
		"forwarded, all is shown":    {true, Config{Verbose: true}, 1},
		"forwarded, as its messages": {true, Config{Messages: true}, 1},
		"served":                     {false, Config{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			e := tracetest.Message(5, event.ServerTx, destroy, 1, 0, 1, nil)
			e.Call = &event.Call{
				Prog: e.Prog, Proc: e.Proc, Serial: e.Serial, Begin: 1, End: 2, Service: 1, Served: true,
				Forwarded: c.forwarded, Peer: e.Peer,
			}
			var out bytes.Buffer
			w, err := New(&out, c.config)
			if err != nil {
				t.Fatal(err)
			}
			tally, err := NewTally(ByProcedure)
			if err != nil {
				t.Fatal(err)
			}
			for _, do := range []error{w.Event(e), w.Idle(), tally.Event(e)} {
				if do != nil {
					t.Fatal(do)
				}
			}
			if got := strings.Count(out.String(), "\n"); got != c.lines {
				t.Errorf("%d lines, want %d:\n%s", got, c.lines, out.String())
			}
			if rows := tally.Rows("calls"); (len(rows) == 0) != c.forwarded {
				t.Errorf("counted %d", len(rows))
			}
		})
	}
}
