package capture

import (
	"bytes"
	"slices"

	"github.com/postern-project/postern/internal/trace/event"
)

// asyncRoom is how many events an Async holds. With a stack and a payload one
// takes up to 32 KiB.
const asyncRoom = 2048

// Async hands events to another sink in a goroutine of its own. What that sink
// does then delays the reader no more, which must look at a new process before it
// is gone. When the other sink is too far behind, the reader waits.
type Async struct {
	next   event.Sink
	before func(*event.Event)
	events chan *event.Event // nil says that nothing more is at hand
	done   chan struct{}
	err    error // of next; read after done is closed
}

// NewAsync starts the goroutine, which Close ends. There before is called with
// each event first, unless it is nil.
func NewAsync(next event.Sink, before func(*event.Event)) *Async {
	b := &Async{next: next, before: before, events: make(chan *event.Event, asyncRoom), done: make(chan struct{})}
	go b.run()
	return b
}

func (b *Async) run() {
	defer close(b.done)
	for e := range b.events {
		if b.err = b.pass(e); b.err != nil {
			return
		}
	}
}

func (b *Async) pass(e *event.Event) error {
	if e == nil {
		return b.next.Idle()
	}
	if b.before != nil {
		b.before(e)
	}
	return b.next.Event(e)
}

// Event takes a copy of the event. It returns the error that ended the other sink.
func (b *Async) Event(e *event.Event) error { return b.send(copyEvent(e)) }

// Idle passes on that nothing more is at hand.
func (b *Async) Idle() error { return b.send(nil) }

func (b *Async) send(e *event.Event) error {
	select {
	case <-b.done:
		return b.err
	case b.events <- e:
		return nil
	}
}

// Close waits until the other sink has all events. Nothing may be sent after it.
func (b *Async) Close() error {
	close(b.events)
	<-b.done
	return b.err
}

// copyEvent copies an event and what is joined to it, which may still change.
func copyEvent(e *event.Event) *event.Event {
	c := *e
	c.Args, c.Strings = slices.Clone(e.Args), slices.Clone(e.Strings)
	c.Payload = bytes.Clone(e.Payload)
	c.Regs, c.Stack = bytes.Clone(e.Regs), bytes.Clone(e.Stack)
	c.Peer, c.Call, c.Cause = copyPeer(e.Peer), copyCall(e.Call), copyCall(e.Cause)
	return &c
}

func copyPeer(p *event.Peer) *event.Peer {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

func copyCall(p *event.Call) *event.Call {
	if p == nil {
		return nil
	}
	c := *p
	c.Peer = copyPeer(p.Peer)
	c.Monitor = slices.Clone(p.Monitor)
	return &c
}
