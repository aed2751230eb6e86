// Package tracetest makes events for the tests of what reads them, and collects them.
package tracetest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
)

// The numbers of the conversation that [Message] makes messages of.
const (
	Remote = 536903814 // libvirt's main program
	Client = 0x7f1ea57dc010
	Server = 0x1c1f710
	Begin  = 5_000_000_000
)

// At returns the moment so many milliseconds after the beginning.
func At(ms int) (uint64, time.Time) {
	return Begin + uint64(ms)*1e6, time.Date(2026, 11, 24, 6, 0, 0, ms*1e6, time.UTC)
}

// Message returns a message between virsh, process 4711, and libvirtd, process 815.
func Message(ms int, k event.Kind, proc int32, typ, status, serial uint32, payload []byte) *event.Event {
	e := &event.Event{
		Kind: k, PID: 4711, TID: 4711, Comm: "virsh", Client: Client, Len: 28 + len(payload),
		Prog: Remote, Vers: 1, Proc: proc, Type: typ, Status: status, Serial: serial,
		Payload: payload, PayloadLen: len(payload),
	}
	if k.Server() {
		e.PID, e.TID, e.Comm, e.Client = 815, 816, "rpc-libvirtd", Server
		e.Peer = &event.Peer{
			PID: 4711, UID: 1000, User: "dan", Start: 77, Session: 3,
			Command: "/usr/bin/virsh domname 5", Remote: "127.0.0.1;0",
		}
	}
	e.Mono, e.Wall = At(ms)
	return e
}

// Word returns numbers as XDR has them.
func Word(n ...uint32) []byte {
	var b []byte
	for _, n := range n {
		b = append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return b
}

// String returns a string as XDR has it.
func String(s string) []byte {
	b := append(Word(uint32(len(s))), s...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// NoDomain is the error of a lookup that found nothing.
var NoDomain = bytes.Join([][]byte{
	Word(42, 10, 1), String("Domain not found: no domain with matching id 5"), Word(2, 0, 1),
	String("Domain not found: %s"),
	Word(1), String("no domain with matching id 5"), Word(0, 0xffffffff, 0xffffffff, 0),
}, nil)

// Other returns an event that is no message.
func Other(ms int, k event.Kind, pid int, args []uint64, texts ...string) *event.Event {
	e := &event.Event{Kind: k, PID: pid, TID: pid, Comm: "libvirtd", Args: args, Strings: texts}
	if k == event.ClientNew || k == event.ClientFree || k.Server() {
		e.Client = args[0]
	}
	e.Mono, e.Wall = At(ms)
	return e
}

var update = flag.Bool("update", false, "write the golden files anew")

// Golden compares text with a file in testdata, or with -update writes it.
func Golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

// Collector is a sink that keeps copies of what it gets. It is safe for concurrent
// use.
type Collector struct {
	Gate chan struct{} // nil, or taken from before every event

	mu     sync.Mutex
	events []event.Event
}

// Event keeps a copy of an event.
func (c *Collector) Event(e *event.Event) error {
	if c.Gate != nil {
		<-c.Gate
	}
	k := *e
	k.Args, k.Strings = slices.Clone(e.Args), slices.Clone(e.Strings)
	k.Payload = bytes.Clone(e.Payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, k)
	return nil
}

// Idle does nothing.
func (c *Collector) Idle() error { return nil }

// All returns the events so far.
func (c *Collector) All() []event.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// Of returns the events so far of which hold is true.
func (c *Collector) Of(hold func(*event.Event) bool) []event.Event {
	var out []event.Event
	for _, e := range c.All() {
		if hold(&e) {
			out = append(out, e)
		}
	}
	return out
}
