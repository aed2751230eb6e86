package correlate

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// recordedModular reads what was seen of libvirt 9.0's virtproxyd and virtqemud while one
// virsh suspended a virtual machine over TLS and SASL, and one of the host resumed it.
func recordedModular(t *testing.T) (events []*event.Event) {
	t.Helper()
	data, err := os.ReadFile("testdata/modular.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		e := new(event.Event)
		if err := json.Unmarshal([]byte(line), e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		_, name, _ := strings.Cut(e.Probe, ":")
		e.Kind = event.KindOf(name)
		events = append(events, e)
	}
	return events
}

// TestModularDaemons: a call by way of virtproxyd is one call of virtqemud's, of the client
// itself, and has its monitor command.
func TestModularDaemons(t *testing.T) {
	all := map[int32]bool{1: true, 2: true, setIdentity: true, lookupByName: true, resume: true, suspend: true}
	t.Run("all is captured", func(t *testing.T) { proxiedCalls(t, all) })
	// As where only procedures that matter to security are.
	few := map[int32]bool{libvirt.Open.Proc: true, setIdentity: true, resume: true, suspend: true}
	t.Run("few procedures are captured", func(t *testing.T) { proxiedCalls(t, few) })
}

const lookupByName, resume, suspend = 23, 28, 34

func proxiedCalls(t *testing.T, seen map[int32]bool) {
	const virtproxyd, virtqemud = 13099, 13151
	alice := event.Peer{
		UID: -1, Local: "127.0.0.1;17291", Remote: "127.0.0.1;36074", TLSName: "O=Postern,CN=tester",
		SASLName: "alice", Via: virtproxyd,
	}
	root := event.Peer{
		PID: 14402, UID: 0, User: "root", Start: 5032040, Command: "virsh resume vm1", Local: "127.0.0.1;0",
		Remote: "127.0.0.1;0", Via: virtproxyd,
	}
	sink := &tracetest.Collector{}
	p := New(Filter{}, true)
	for _, e := range recordedModular(t) {
		if e.Kind.RPC() && !seen[e.Proc] {
			continue
		}
		if err := p.Event(e, sink); err != nil {
			t.Fatal(err)
		}
	}
	served := map[event.Peer][]int32{}
	for _, e := range sink.Of(func(e *event.Event) bool {
		return e.Kind == event.ServerTx && (e.Proc == lookupByName || e.Proc == resume || e.Proc == suspend)
	}) {
		if e.PID == virtproxyd {
			if !e.Call.Forwarded || e.Peer.Via != 0 {
				t.Errorf("virtproxyd's procedure %d: forwarded %v, of %+v", e.Proc, e.Call.Forwarded, e.Peer)
			}
			continue
		}
		if e.PID != virtqemud || e.Call.Forwarded || *e.Peer != *e.Call.Peer {
			t.Errorf("procedure %d of process %d: forwarded %v, of %+v and %+v", e.Proc, e.PID, e.Call.Forwarded,
				e.Peer, e.Call.Peer)
		}
		served[*e.Peer] = append(served[*e.Peer], e.Proc)
		command := map[int32]string{resume: `"cont"`, suspend: `"stop"`}[e.Proc]
		if (command != "") != (len(e.Call.Monitor) == 1) || command != "" &&
			!strings.Contains(e.Call.Monitor[0].Text, command) {
			t.Errorf("procedure %d has the commands %+v", e.Proc, e.Call.Monitor)
		}
	}
	for who, proc := range map[event.Peer]int32{alice: suspend, root: resume} {
		want := []int32{proc}
		if seen[lookupByName] {
			want = []int32{lookupByName, proc}
		}
		if !slices.Equal(served[who], want) {
			t.Errorf("%v of %+v, of %+v", served[who], who, served)
		}
	}
	named := sink.Of(func(e *event.Event) bool { return e.Kind == event.ServerTx && e.Call.Named })
	if len(named) != 2 {
		t.Errorf("%d calls name a client, want one on each connection", len(named))
	}
}
