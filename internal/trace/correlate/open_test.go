package correlate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

const getInfo, lookup = 16, 22

// conversation is what a daemon and its client on this host see of a call without an
// answer, in which another is called and answered.
func conversation() []*event.Event {
	return []*event.Event{
		tracetest.Message(0, event.ClientTx, lookup, 0, 0, 1, tracetest.Word(5)),
		tracetest.Message(1, event.ServerRx, lookup, 0, 0, 1, tracetest.Word(5)),
		tracetest.Message(10, event.ServerRx, getInfo, 0, 0, 2, nil),
		tracetest.Message(3000, event.ServerTx, getInfo, 1, 0, 2, nil),
	}
}

// notices runs events through a pipeline and returns its output, as kind, age in
// milliseconds, process and serial number.
func notices(t *testing.T, f Filter, events []*event.Event, end int) []string {
	t.Helper()
	c := &tracetest.Collector{}
	p := New(f, false)
	for _, e := range events {
		if err := p.Event(e, c); err != nil {
			t.Fatal(err)
		}
	}
	mono, _ := tracetest.At(end)
	if err := p.End(mono, c); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range c.All() {
		_, wall := tracetest.At(int(e.Mono-tracetest.Begin) / 1e6)
		if !e.Wall.Equal(wall) {
			t.Errorf("%v at %v, want %v", e.Kind, e.Wall, wall)
		}
		if e.Kind.Notice() {
			out = append(out, fmt.Sprintf("%s %d %d #%d %x", names[e.Kind], e.Took.Milliseconds(), e.PID, e.Serial,
				e.Payload))
		} else if e.Kind == event.ServerTx {
			out = append(out, fmt.Sprintf("answer %d #%d", e.Took.Milliseconds(), e.Serial))
		}
	}
	return out
}

var names = map[event.Kind]string{event.CallSlow: "slow", event.CallOpen: "open", event.CallUnanswered: "unanswered"}

func TestCallsWithoutAnAnswer(t *testing.T) {
	closing := &event.Event{
		Kind: event.ServerFree, PID: 815, Args: []uint64{tracetest.Server},
		Client: tracetest.Server,
	}
	closing.Mono, closing.Wall = tracetest.At(4000)
	gone := &event.Event{Kind: event.Gone, PID: 815}
	gone.Mono, gone.Wall = tracetest.At(4000)
	left := &event.Event{Kind: event.ClientFree, PID: 4711, Args: []uint64{tracetest.Client}, Client: tracetest.Client}
	left.Mono, left.Wall = tracetest.At(4000)
	for name, c := range map[string]struct {
		filter Filter
		last   *event.Event
		want   []string
	}{
		"open at the end": {Filter{}, nil, []string{"answer 2990 #2", "open 5000 815 #1 00000005"}},
		"slow, before the answer": {Filter{Slower: 2 * time.Second}, nil, []string{
			"slow 2000 815 #1 00000005",
			"slow 2000 815 #2 ", "answer 2990 #2", "open 5000 815 #1 00000005",
		}},
		"slow after the last": {
			Filter{Slower: 4 * time.Second},
			nil,
			[]string{"slow 4000 815 #1 00000005", "open 5000 815 #1 00000005"},
		},
		"never that slow":      {Filter{Slower: time.Minute}, nil, nil},
		"the connection ended": {Filter{}, closing, []string{"answer 2990 #2", "unanswered 4000 815 #1 00000005"}},
		"the daemon ended":     {Filter{}, gone, []string{"answer 2990 #2", "unanswered 4000 815 #1 00000005"}},
		"the client ended":     {Filter{}, left, []string{"answer 2990 #2", "open 5000 815 #1 00000005"}},
		"another procedure": {Filter{Procedures: map[event.Procedure]bool{{
			Prog: tracetest.Remote,
			Proc: getInfo,
		}: true}}, nil, []string{"answer 2990 #2"}},
		"another user's":       {Filter{Users: []string{"eve"}}, nil, nil},
		"answers are not seen": {Filter{Errors: true}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			events := conversation()
			if c.last != nil {
				events = append(events, c.last)
			}
			if got := notices(t, c.filter, events, 5000); !slices.Equal(got, c.want) {
				t.Errorf("%q\nwant %q", got, c.want)
			}
		})
	}
}

// TestManyCallsWithoutAnAnswer: the number of open calls that are remembered is bounded,
// and those that are forgotten are reported.
func TestManyCallsWithoutAnAnswer(t *testing.T) {
	var events []*event.Event
	for i := range uint32(3 * maxCalls) {
		events = append(events, tracetest.Message(int(i), event.ServerRx, getInfo, 0, 0, i, nil))
	}
	if got := notices(t, Filter{}, events, 5000); len(got) != 3*maxCalls {
		t.Errorf("%d calls of %d", len(got), 3*maxCalls)
	}
}
