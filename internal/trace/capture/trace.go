package capture

import (
	"context"
	"errors"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
)

// Trace runs a session with c until ctx ends, and returns what was seen and lost.
// Events go to sink with their stacks unwound; with a nil sink they go to c.Record
// alone. ready is called once events are seen, and its error ends the trace.
func Trace(ctx context.Context, c Config, sink event.Sink, ready func(*Session) error) (event.Summary, error) {
	var u *unwound
	if sink == nil {
		u = unwind(&c, c.Record)
		c.Record, sink = u, recording{u}
	} else {
		u = unwind(&c, sink)
		sink = u
	}
	s, err := Start(c)
	if err != nil {
		return event.Summary{}, errors.Join(err, u.Close())
	}
	u.watch(s)
	if err = ready(s); err == nil {
		err = s.Run(ctx, sink)
	}
	if cerr := u.Close(); err == nil {
		err = cerr
	}
	return s.Summary(), errors.Join(err, s.Close())
}

// recording takes no events, since the session records them by itself. It passes on
// that nothing more is at hand.
type recording struct{ event.Sink }

func (recording) Event(*event.Event) error { return nil }

// unwound is a sink that unwinds the stacks of events and hands them on: in a
// goroutine of its own, so that the session is in time to look at processes that live
// for milliseconds.
type unwound struct {
	event.Sink
	unwinder *stack.Unwinder // nil without stacks
	async    *Async
}

// unwind puts an unwound before a sink of a session with c, which it completes. Of a
// session without stacks it hands events on as they are.
func unwind(c *Config, next event.Sink) *unwound {
	if !c.Stack {
		return &unwound{Sink: next}
	}
	u := stack.New(stack.Config{})
	a := NewAsync(next, u.Unwind)
	c.Stacked = u.Prepare
	return &unwound{Sink: a, unwinder: u, async: a}
}

// watch prepares for stacks of the processes that are there.
func (u *unwound) watch(s *Session) {
	if u.unwinder == nil {
		return
	}
	for _, l := range s.Libraries() {
		for _, pid := range l.PIDs {
			_ = u.unwinder.Watch(pid) // one that has ended has no stacks
		}
	}
}

// Close waits until the next sink has all events.
func (u *unwound) Close() error {
	if u.unwinder == nil {
		return nil
	}
	defer u.unwinder.Close()
	return u.async.Close()
}
