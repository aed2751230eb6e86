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
	open := func(age time.Duration) event.Event {
		e := *tracetest.Message(1, event.ServerRx, 12, 0, 0, 1, nil)
		e.Kind, e.Took, e.Call = event.CallOpen, age, &event.Call{Served: true, Domain: "vm1"}
		return e
	}
	var out strings.Builder
	m := &Model{open: []event.Event{open(31 * time.Second), open(time.Millisecond)}}
	m.writeOpen(&out)
	if want := "\nOPEN FOR  CALL\n  31.0 s  remote.domain_destroy on vm1 of dan virsh[4711]\n"; out.String() != want {
		t.Errorf("got %q\nwant %q", out.String(), want)
	}
}
