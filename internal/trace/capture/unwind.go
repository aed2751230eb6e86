package capture

import (
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
)

// Unwound is a sink that unwinds the stacks of events and hands them on: in a
// goroutine of its own, so that the session is in time to look at processes that live
// for milliseconds.
type Unwound struct {
	event.Sink
	unwinder *stack.Unwinder // nil without stacks
	async    *Async
}

// Unwind puts an [Unwound] before a sink of a session with c, which it completes. Of
// a session without stacks it hands events on as they are.
func Unwind(c *Config, next event.Sink) *Unwound {
	if !c.Stack {
		return &Unwound{Sink: next}
	}
	u := stack.New(stack.Config{})
	a := NewAsync(next, u.Unwind)
	c.Stacked = u.Prepare
	return &Unwound{Sink: a, unwinder: u, async: a}
}

// Watch prepares for stacks of the processes that are there.
func (u *Unwound) Watch(s *Session) {
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
func (u *Unwound) Close() error {
	if u.unwinder == nil {
		return nil
	}
	defer u.unwinder.Close()
	return u.async.Close()
}
