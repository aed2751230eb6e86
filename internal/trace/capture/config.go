// Package capture reads what libvirt does from the static probes in libvirt's own
// files: RPC messages, event loop and QEMU monitor. It finds the files, attaches to
// their probes, turns the kernel's records into events, and asks the living
// processes who their clients are.
package capture

import (
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
)

// What is a set of what can be watched.
type What uint8

// What can be watched.
const (
	RPC     What = 1 << iota // messages, connections, authentication, TLS, keepalive
	Loop                     // handles and timeouts of the event loop
	Monitor                  // messages to and from QEMU
)

// ParseWhat returns what names stand for: rpc, qemu, events.
func ParseWhat(names []string) (w What, err error) {
	for _, name := range names {
		bit := map[string]What{"rpc": RPC, "qemu": Monitor, "events": Loop}[name]
		if bit == 0 {
			return 0, postern.Errorf(postern.Invalid, "nothing is called %q that can be watched", name).
				WithHint("one of rpc, qemu, events")
		}
		w |= bit
	}
	return w, nil
}

func (w What) has(k event.Kind) bool {
	switch {
	case k >= event.ClientTx && k <= event.KeepaliveTimeout:
		return w&RPC != 0
	case k >= event.HandleAdd && k <= event.PollRun:
		return w&Loop != 0
	case k == event.MonitorIO || k == event.MonitorRead || k == event.MonitorWrite || k == event.MonitorRef ||
		k == event.MonitorUnref:
		return false // the messages themselves contain more
	case k >= event.MonitorNew && k <= event.MonitorSendFD:
		return w&Monitor != 0
	}
	return false
}

// Config says what a session watches. The zero value watches RPC in all
// processes, those that start later included.
type Config struct {
	What  What     // 0 means RPC
	Paths []string // only these files; none means all of libvirt's
	Stack bool     // copy registers and stack with every event
	// Stacked is given every event with a stack as soon as it is read, while its
	// process is likely still there; nil for none.
	Stacked func(*event.Event)
	Filter  correlate.Filter
	Tree    bool // withhold monitor messages of calls: the call's reply carries them
	// Queue measures how long each call waited for a worker and how long the worker
	// took: one more probe for each call.
	Queue bool

	oneByOne bool // see bpf.Config; for tests

	Buffer  int // bytes of the ring buffer; 0 means 4 MiB, with Stack 64 MiB
	Payload int // most bytes of a message or text that are copied, up to 64 KiB; 0 means 16 KiB, negative none
	// Record gets every event with its client, before it is joined and filtered. Its Idle is not
	// called. nil for none.
	Record event.Sink
}

// Validate checks c.
func (c Config) Validate() error {
	if c.What&^(RPC|Loop|Monitor) != 0 {
		return fmt.Errorf("unknown things to watch: %x", c.What)
	}
	if err := c.Filter.Validate(); err != nil {
		return err
	}
	return c.checkKernel()
}
