package top

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// TestOpenCallsAreShown: those that have run for a while, with who waits for them.
func TestOpenCallsAreShown(t *testing.T) {
	const domainDestroy = 12
	open := func(age time.Duration) event.Event {
		e := *tracetest.Message(1, event.ServerRx, domainDestroy, 0, 0, 1, nil)
		e.Kind, e.Took, e.Call = event.CallOpen, age, &event.Call{Served: true, Domain: "vm1"}
		return e
	}
	var out strings.Builder
	m := &Model{open: []event.Event{open(31 * time.Second), open(time.Millisecond)}}
	m.writeOpen(&out)
	if want := "\nOPEN FOR  CALL\n  31.0 s  remote.domain_destroy on vm1 of dan virsh[4711]\n"; out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
	m, out = &Model{}, strings.Builder{}
	for _, uuid := range []string{"\x01", "\x02"} {
		e := open(time.Second)
		e.Call = &event.Call{Prog: e.Prog, Proc: domainDestroy, Served: true}
		e.Call.Args = append(append(tracetest.String("vm1"), strings.Repeat(uuid, 16)...), tracetest.Word(5)...)
		m.open = append(m.open, e)
	}
	m.writeOpen(&out)
	for _, want := range []string{" on vm1 (01010101-0101-", " on vm1 (02020202-0202-"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q has no %q", out.String(), want)
		}
	}
}
