package correlate

import (
	"cmp"
	"slices"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// noted keeps what a later notice of the call repeats.
func (c *call) noted(e *event.Event) {
	c.first = *e
	n := &c.first
	n.Args, n.Strings, n.Frames, n.Regs, n.Stack = nil, nil, nil, nil, nil
	n.Payload, n.PayloadLen, n.Call = c.Args, c.ArgsLen, &c.Call
	n.NoPayload = c.Args == nil && c.ArgsLen > 0
	n.Cut = len(n.Payload) < n.PayloadLen
	c.Served = e.Kind.Server()
}

// open reports whether no answer has been seen.
func (c *call) open() bool { return c.End == 0 && !c.dropped }

// notice returns an event that reports an open call at a moment.
func (p *Pipeline) notice(k event.Kind, c *call, mono uint64) event.Event {
	e := c.first
	e.Kind, e.Mono, e.Wall = k, mono, p.wall(mono)
	e.Took = span(c.Begin, mono)
	return e
}

// wall returns the wall-clock time of a moment near the newest event's.
func (p *Pipeline) wall(mono uint64) time.Time {
	return p.newest.wall.Add(time.Duration(int64(mono - p.newest.mono)))
}

// moment is one point in time on both clocks.
type moment struct {
	mono uint64
	wall time.Time
}

// Idle reports the calls that have become slow until now, a moment of
// CLOCK_MONOTONIC up to which all events have been handed in.
func (p *Pipeline) Idle(now uint64, sink event.Sink) error {
	if err := p.slow(now, sink); err != nil {
		return err
	}
	return p.unanswered(now, sink)
}

// slow hands on a notice of each call that has been running for as long as the
// filter asks for, at the moment when it has.
func (p *Pipeline) slow(now uint64, sink event.Sink) error {
	for f := p.join.running.Front(); f != nil; f = p.join.running.Front() {
		c := f.Value.(*call)
		due := c.Begin + uint64(p.filter.Slower)
		if due > now {
			return nil
		}
		p.join.running.Remove(f)
		c.place = nil
		if err := p.report(event.CallSlow, c, due, sink); err != nil {
			return err
		}
	}
	return nil
}

// unanswered hands on a notice of each call whose connection has ended.
func (p *Pipeline) unanswered(now uint64, sink event.Sink) error {
	dropped := p.join.dropped
	p.join.dropped = nil
	for _, c := range dropped {
		if err := p.report(event.CallUnanswered, c, now, sink); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pipeline) report(k event.Kind, c *call, mono uint64, sink event.Sink) error {
	e := p.notice(k, c, mono)
	if !p.filter.open(&e, c, p.domain) {
		return nil
	}
	return sink.Event(&e)
}

// open returns the calls without an answer, each once, the oldest first.
func (j *joiner) open() []*call {
	seen := map[*call]bool{}
	var out []*call
	for _, l := range j.links {
		for _, c := range l.calls {
			if c.open() && !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
		}
	}
	slices.SortFunc(out, func(a, b *call) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.Serial, b.Serial))
	})
	return out
}

// drop gives up waiting for the answers of a side's calls. What the daemon has read
// may still be answered there.
func (j *joiner) drop(l *side) {
	for _, c := range l.calls {
		if c.open() && c.Served == l.server {
			j.finish(c)
			c.dropped = true
			j.dropped = append(j.dropped, c)
		}
	}
	clear(l.calls)
}

// finish takes a call off the list of those that may become slow.
func (j *joiner) finish(c *call) {
	if c.place != nil {
		j.running.Remove(c.place)
		c.place = nil
	}
}

// open decides about a notice of a call without an answer.
func (f *Filter) open(e *event.Event, c *call, domain func(*event.Event) string) bool {
	switch {
	case !f.answers() || !f.who(e):
		return false
	case !f.procedure(e.Prog, e.Proc):
		return false
	case len(f.Domains) > 0 && !f.domain(domainOf(e, c, domain)):
		return false
	}
	return e.Took >= f.Slower
}

// answers reports whether all answers are seen, so that a call without one is open.
func (f *Filter) answers() bool {
	const both = 1<<libvirt.Call | 1<<libvirt.Reply
	return !f.Errors && f.Statuses == 0 && (f.Types == 0 || f.Types&both == both)
}
