package capture

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"unsafe"

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

// TestNameOfATLSSession: libvirt 12.8 gives its probe an empty name, and keeps the right one
// in the session.
func TestNameOfATLSSession(t *testing.T) {
	name, host, long := []byte("C=DE,O=Example,CN=alice\x00"), []byte("hv1.example.com\x00"), make([]byte, 2*maxName)
	for i := range long {
		long[i] = 'A'
	}
	long[1] = '='
	at := func(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }
	session := make([]uint64, 32)
	address := uint64(uintptr(unsafe.Pointer(&session[0])))
	session[1], session[2], session[9], session[12] = 7, address, at(host), at(long)
	if got := sessionName(os.Getpid(), address); got != "" {
		t.Errorf("the name is %q", got)
	}
	session[14] = at(name)
	e := &event.Event{
		Kind: event.TLSAllow, PID: os.Getpid(), Args: []uint64{1, address, 2}, Strings: []string{"", "", ""},
	}
	newPeers().tls(e)
	if e.Text(2) != "C=DE,O=Example,CN=alice" {
		t.Errorf("the name is %q", e.Text(2))
	}
	runtime.KeepAlive([]any{name, host, long, session})
}
