package correlate

import (
	"time"

	"github.com/postern-project/postern/internal/trace/event"
)

// Snapshot is what is open at a moment.
type Snapshot struct {
	Mono uint64 // nanoseconds of CLOCK_MONOTONIC
	Wall time.Time
	// Calls are notices of kind CallOpen of those that the filter chooses, the oldest first.
	Calls []event.Event
	// Commands are the monitor commands without an answer, by the thread that sent them.
	Commands map[int]event.Command
}

// Snapshot copies what is open at a moment up to which all events have been handed in.
func (p *Pipeline) Snapshot(now uint64) Snapshot {
	s := Snapshot{Mono: now, Wall: p.wall(now), Commands: map[int]event.Command{}}
	for _, c := range p.join.open() {
		e := p.notice(event.CallOpen, c, now)
		if !p.filter.open(&e, c, p.domain) {
			continue
		}
		call := c.Call
		e.Call = &call
		s.Calls = append(s.Calls, e)
	}
	for tid, t := range p.join.threads {
		if n := len(t.commands); n > 0 && t.commands[n-1].Took == 0 {
			c := *t.commands[n-1]
			c.Took = span(c.Send, now)
			s.Commands[tid] = c
		}
	}
	return s
}

// Open returns how many calls that the filter chooses are open, and the age of the
// oldest.
func (p *Pipeline) Open(now uint64) (n int, oldest time.Duration) {
	calls := p.Snapshot(now).Calls
	for i := range calls {
		oldest = max(oldest, calls[i].Took)
	}
	return len(calls), oldest
}
