package correlate

import (
	"bytes"
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

func through(t *testing.T, events ...*event.Event) *tracetest.Collector {
	t.Helper()
	sink, p := &tracetest.Collector{}, New(Filter{}, false)
	for _, e := range events {
		if err := p.Event(e, sink); err != nil {
			t.Fatal(err)
		}
	}
	return sink
}

// TestClientCannotShowAnotherCall: a client that sends something else than its library was
// given is reported with what the daemon has read.
func TestClientCannotShowAnotherCall(t *testing.T) {
	msg := tracetest.Message
	sink := through(t,
		msg(1, event.ClientTx, destroy, 0, 0, 1, []byte("shown")),
		msg(2, event.ServerRx, destroy, 0, 0, 1, []byte("done it")),
		msg(3, event.ServerTx, destroy, 1, 0, 1, nil))
	answer := sink.All()[2]
	if c := answer.Call; !bytes.Equal(c.Args, []byte("done it")) || c.ArgsLen != 7 {
		t.Errorf("arguments %q of %d bytes", c.Args, c.ArgsLen)
	}
}

// TestClientCannotHideACall: an answer that only the client has seen does not end a call that
// the daemon has read.
func TestClientCannotHideACall(t *testing.T) {
	msg := tracetest.Message
	sink := through(t,
		msg(1, event.ClientTx, destroy, 0, 0, 1, nil),
		msg(2, event.ServerRx, destroy, 0, 0, 1, nil),
		msg(3, event.ClientRx, destroy, 1, 0, 1, nil),
		tracetest.Other(4, event.ServerFree, 815, []uint64{tracetest.Server}))
	if n := len(sink.Of(func(e *event.Event) bool { return e.Kind == event.CallUnanswered })); n != 1 {
		t.Errorf("%d calls are reported as unanswered", n)
	}
}

// TestProxyPassesOnAForgedName: virtproxyd opens a connection to another daemon in the name
// that its client has given itself, which is not taken for the client's own.
func TestProxyPassesOnAForgedName(t *testing.T) {
	for name, attacker := range map[string]*event.Peer{
		"of this host":    {PID: 666, UID: 1001, User: "mallory", Remote: "127.0.0.1;0"},
		"of another host": {UID: -1, SASLName: "mallory", Remote: "192.0.2.6;40000"},
	} {
		t.Run(name, func(t *testing.T) {
			var forged []*event.Event
			for _, k := range []event.Kind{event.ServerRx, event.ServerTx} {
				e := tracetest.Message(0, k, setIdentity, 0, 0, 9, tracetest.SetIdentity(4711, 77, 1000, "dan", "dan"))
				if e.PID, e.Client, e.Peer = proxyPID, 0x666, attacker; k == event.ServerTx {
					e.Type, e.Payload = 1, nil
				}
				forged = append(forged, e)
			}
			sink := through(t, append(forged, proxied(0, 0)...)...)
			for _, e := range sink.Of(func(e *event.Event) bool {
				return e.Kind == event.ServerTx && e.Proc == destroy
			}) {
				if e.Call.Forwarded || e.PID != proxyPID && e.Peer.PID != proxyPID {
					t.Errorf("by daemon %d: forwarded %v, of %+v", e.PID, e.Call.Forwarded, e.Peer)
				}
			}
		})
	}
}
