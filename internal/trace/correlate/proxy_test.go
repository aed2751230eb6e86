package correlate

import (
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

const (
	proxyPID    = 500 // virtproxyd
	setIdentity = 419
	destroy     = 12
)

// proxied is what is seen of virsh's call to virtproxyd, process 500, which makes it
// at virtqemud, process 815, as a user: once it has said for whom.
func proxied(proxyUID int, status uint32) []*event.Event {
	virsh := &event.Peer{
		PID: 4711, UID: 1000, User: "dan", Start: 77, Session: 3, Command: "virsh destroy vm1",
		Remote: "127.0.0.1;0",
	}
	proxy := &event.Peer{
		PID: proxyPID, UID: proxyUID, User: "root", Start: 5, Command: "virtproxyd",
		Remote: "127.0.0.1;0",
	}
	at := func(e *event.Event, pid, tid int, client uint64, p *event.Peer) *event.Event {
		e.PID, e.TID, e.Client, e.Peer = pid, tid, client, p
		return e
	}
	msg := tracetest.Message
	id := tracetest.SetIdentity(4711, 77, 1000, "dan", "dan@EXAMPLE")
	return []*event.Event{
		at(msg(1, event.ServerRx, destroy, 0, 0, 1, nil), proxyPID, 500, 0x10, virsh),
		at(msg(2, event.ClientTx, setIdentity, 0, 0, 1, id), proxyPID, 501, 0x20, nil),
		at(msg(3, event.ServerRx, setIdentity, 0, 0, 1, id), 815, 815, 0x30, proxy),
		at(msg(4, event.ServerTx, setIdentity, 1, status, 1, nil), 815, 816, 0x30, proxy),
		at(msg(5, event.ClientRx, setIdentity, 1, status, 1, nil), proxyPID, 501, 0x20, nil),
		at(msg(6, event.ClientTx, destroy, 0, 0, 2, nil), proxyPID, 501, 0x20, nil),
		at(msg(7, event.ServerRx, destroy, 0, 0, 2, nil), 815, 815, 0x30, proxy),
		at(msg(8, event.ServerTx, destroy, 1, 0, 2, nil), 815, 816, 0x30, proxy),
		at(msg(9, event.ClientRx, destroy, 1, 0, 2, nil), proxyPID, 501, 0x20, nil),
		at(msg(10, event.ServerTx, destroy, 1, 0, 1, nil), proxyPID, 501, 0x10, virsh),
	}
}

// TestProxyNamesTheClient: only the daemon's own user is trusted, and only once the
// daemon has accepted it.
func TestProxyNamesTheClient(t *testing.T) {
	for name, c := range map[string]struct {
		uid     int
		status  uint32
		trusted bool
	}{
		"the daemon's own user": {0, 0, true},
		"another user":          {1000, 0, false},
		"no known user":         {-1, 0, false},
		"refused by the daemon": {0, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			sink := &tracetest.Collector{}
			p := New(Filter{}, false)
			for _, e := range proxied(c.uid, c.status) {
				if err := p.Event(e, sink); err != nil {
					t.Fatal(err)
				}
			}
			for _, e := range sink.Of(func(e *event.Event) bool {
				return e.Kind == event.ServerTx && e.Proc == destroy
			}) {
				if e.PID == proxyPID {
					if e.Peer.PID != 4711 || e.Call.Forwarded != c.trusted {
						t.Errorf("at the proxy: forwarded %v, of %+v", e.Call.Forwarded, e.Peer)
					}
					continue
				}
				want := event.Peer{
					PID: proxyPID, UID: c.uid, User: "root", Start: 5, Command: "virtproxyd",
					Remote: "127.0.0.1;0",
				}
				if c.trusted {
					want = event.Peer{
						PID: 4711, UID: 1000, User: "dan", Start: 77, Session: 3, Command: "virsh destroy vm1",
						SASLName: "dan@EXAMPLE", Via: proxyPID, Remote: "127.0.0.1;0",
					}
				}
				if *e.Peer != want || *e.Call.Peer != want || e.Call.Forwarded {
					t.Errorf("at the daemon: %+v, want %+v", e.Peer, want)
				}
			}
		})
	}
}

// TestClientsOfProxiesAreKept: what is recorded after a proxy has named its client has
// that client, also where the naming itself is not kept.
func TestClientsOfProxiesAreKept(t *testing.T) {
	live, later := New(Filter{}, false), New(Filter{}, false)
	seen, replayed := &tracetest.Collector{}, &tracetest.Collector{}
	for i, e := range proxied(0, 0) {
		if live.Identify(e); i > 4 {
			kept := *e
			if err := later.Event(&kept, replayed); err != nil {
				t.Fatal(err)
			}
		}
		if err := live.Event(e, seen); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*tracetest.Collector{seen, replayed} {
		answers := c.Of(func(e *event.Event) bool {
			return e.Kind == event.ServerTx && e.Proc == destroy && e.PID != proxyPID
		})
		if len(answers) != 1 || answers[0].Peer.PID != 4711 || answers[0].Peer.Via != proxyPID {
			t.Errorf("%+v", answers)
		}
	}
}
