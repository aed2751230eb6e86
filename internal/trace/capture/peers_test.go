package capture

import (
	"os/exec"
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
)

// TestClientThatIsGoneKeepsItsName: a client may have ended, and may have been
// waited for, before the tracer asks the host about it.
func TestClientThatIsGoneKeepsItsName(t *testing.T) {
	const client, gone = 0x1000, 1 << 30 // no process has a number so high
	d := newPeers()
	server := event.Event{Kind: event.ServerNew, PID: 1, Args: []uint64{client, 0x2000}, Client: client}
	d.sockets[event.Pointer{PID: 1, Addr: 0x2000}] = socket{peer: &event.Peer{PID: gone}}
	d.see(&server)
	if server.Peer.PID != gone || server.Peer.Command != "" {
		t.Fatalf("%+v", server.Peer)
	}
	d.see(&event.Event{Kind: event.ClientNew, PID: gone, Comm: "virsh", Args: []uint64{0x3000, 0x4000}})
	call := event.Event{Kind: event.ServerRx, PID: 1, Client: client}
	d.see(&call)
	if call.Peer.Command != "virsh" || call.Peer.PID != gone {
		t.Errorf("%+v", call.Peer)
	}
}

func TestEndedClientHasItsName(t *testing.T) {
	cmd := exec.Command("true")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	for n, b := 1, make([]byte, 1); n > 0; { // until it has ended
		n, _ = out.Read(b)
	}
	if p := newPeers().process(cmd.Process.Pid, true); p == nil || p.command != "true" {
		t.Errorf("%+v", p)
	}
}
