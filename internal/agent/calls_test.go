package agent

import (
	"fmt"
	"slices"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
	"github.com/postern-project/postern/timeline"
)

// domain is a reference to the virtual machine vm1, as a call has it.
func domain() []byte {
	b := tracetest.String("vm1")
	b = append(b, make([]byte, 16)...)
	return append(b, tracetest.Word(5)...)
}

// TestOutcomes reports calls that are answered, refused and never answered. What is
// not known is not called a failure.
func TestOutcomes(t *testing.T) {
	const destroy, getInfo, unknown = 12, 16, 9999
	call := func(ms int, proc int32, serial uint32, payload []byte) *event.Event {
		return tracetest.Message(ms, event.ServerRx, proc, 0, 0, serial, payload)
	}
	reply := func(ms int, proc int32, status, serial uint32, payload []byte) *event.Event {
		return tracetest.Message(ms, event.ServerTx, proc, 1, status, serial, payload)
	}
	closed := &event.Event{
		Kind: event.ServerFree, PID: 815, Args: []uint64{tracetest.Server},
		Client: tracetest.Server,
	}
	closed.Mono, closed.Wall = tracetest.At(60)
	late := call(70, destroy, 9, domain())
	late.Client++
	users := call(80, destroy, 10, domain())
	users.Client, users.UID = tracetest.Server+2, 1000 // a daemon of one user's own
	events := []*event.Event{
		reply(1, destroy, 0, 1, nil), // called before the trace began
		call(10, destroy, 2, domain()), reply(20, destroy, 0, 2, nil),
		call(21, getInfo, 3, domain()), reply(22, getInfo, 0, 3, nil),
		call(23, unknown, 4, nil), reply(24, unknown, 0, 4, nil),
		call(30, destroy, 5, domain()), reply(31, destroy, 1, 5, tracetest.NoDomain),
		call(40, destroy, 6, domain()),
		closed, late, users,
	}
	watched, err := Watch([]string{"domain_destroy", "remote.9999"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	c := newCalls("hv1", watched, func(e postern.Event) {
		_, began := tracetest.At(0)
		got = append(got, fmt.Sprintf("%s %s %s %d+%d %s", e.Details[timeline.Procedure], e.Object, e.Outcome,
			e.Time.Sub(began).Milliseconds(), e.Took.Milliseconds(), e.Details["unknown"]))
	})
	p := correlate.New(watched.filter(), false)
	for _, e := range events {
		if err := p.Event(e, c); err != nil {
			t.Fatal(err)
		}
	}
	mono, _ := tracetest.At(90)
	if err := p.End(mono, c); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"domainDestroy  ok 1+0 ", "domainDestroy vm1 ok 10+10 ", "9999  ok 23+1 true",
		"domainDestroy vm1 failed 30+1 ",
		"domainDestroy vm1 unknown 40+20 ", "domainDestroy vm1 unknown 70+20 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// TestDefinedMachineHasItsUUID: the answer has it where the definition does not.
func TestDefinedMachineHasItsUUID(t *testing.T) {
	const createXML, destroy = 10, 12
	xml := append(tracetest.String("<domain type='qemu'><name>vm1</name></domain>"), tracetest.Word(0)...)
	watched, err := Watch(nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	c := newCalls("hv1", watched, func(e postern.Event) {
		line := e.Details[timeline.Procedure] + " " + e.Object
		for _, l := range e.Links {
			if l.Kind == postern.LinkDomain {
				line += " " + l.ID
			}
		}
		got = append(got, line)
	})
	p := correlate.New(watched.filter(), false)
	for _, e := range []*event.Event{
		tracetest.Message(1, event.ServerRx, createXML, 0, 0, 1, xml),
		tracetest.Message(2, event.ServerTx, createXML, 1, 0, 1, domain()),
		tracetest.Message(3, event.ServerRx, destroy, 0, 0, 2, domain()),
		tracetest.Message(4, event.ServerTx, destroy, 1, 0, 2, nil),
	} {
		if err := p.Event(e, c); err != nil {
			t.Fatal(err)
		}
	}
	const uuid = "00000000-0000-0000-0000-000000000000"
	if want := []string{"domainCreateXML vm1 " + uuid, "domainDestroy vm1 " + uuid}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
