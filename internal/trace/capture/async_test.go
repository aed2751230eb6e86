package capture

import (
	"errors"
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
)

// slowSink keeps what it gets, once it may, and fails at an event of its choice.
type slowSink struct {
	gate   chan struct{}
	failAt uint64
	events []*event.Event
	idles  int
}

var errSink = errors.New("the sink is full")

func (s *slowSink) Event(e *event.Event) error {
	<-s.gate
	s.events = append(s.events, e)
	if s.failAt > 0 && e.Mono == s.failAt {
		return errSink
	}
	return nil
}

func (s *slowSink) Idle() error { s.idles++; return nil }

func TestAsyncKeepsOrderAndCopies(t *testing.T) {
	s := &slowSink{gate: make(chan struct{})}
	b := NewAsync(s, nil)
	e := &event.Event{
		Args: []uint64{0}, Strings: []string{""}, Payload: []byte{0}, Stack: []byte{0}, Peer: &event.Peer{},
		Call: &event.Call{Peer: &event.Peer{}, Monitor: []event.Command{{}}},
	}
	for i := range uint64(100) { // the reader uses the same event again and again
		e.Mono, e.Args[0], e.Payload[0], e.Stack[0] = i, i, byte(i), byte(i)
		e.Peer.UID, e.Call.Serial, e.Call.Monitor[0].Send = int(i), uint32(i), i
		if err := b.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Idle(); err != nil {
		t.Fatal(err)
	}
	close(s.gate)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if len(s.events) != 100 || s.idles != 1 {
		t.Fatalf("%d events, %d idles", len(s.events), s.idles)
	}
	for i, e := range s.events {
		n := uint64(i)
		if e.Mono != n || e.Args[0] != n || e.Payload[0] != byte(i) || e.Stack[0] != byte(i) || e.Peer.UID != i ||
			e.Call.Serial != uint32(i) || e.Call.Monitor[0].Send != n {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
}

func TestAsyncTellsWhatEndedIt(t *testing.T) {
	s := &slowSink{gate: make(chan struct{}), failAt: 3}
	close(s.gate)
	b := NewAsync(s, nil)
	var err error
	for i := uint64(1); err == nil && i < 100_000; i++ {
		err = b.Event(&event.Event{Mono: i})
	}
	if !errors.Is(err, errSink) || !errors.Is(b.Close(), errSink) || len(s.events) != 3 {
		t.Errorf("%v after %d events", err, len(s.events))
	}
}
