package report

import (
	"encoding/binary"
	"slices"

	"github.com/postern-project/postern/internal/trace/event"
)

// madeBy holds the stacks that calls without an answer were made with. What a recording says
// does not decide how much memory that takes: equal stacks are one, and the rest is bounded.
type madeBy struct {
	calls  map[*event.Call][]event.Frame
	stacks map[string][]event.Frame // by the addresses in them
	key    []byte
}

const (
	maxMade  = 4096 // calls, and stacks
	maxStack = 64   // frames of one, from the innermost
)

func newMadeBy() madeBy {
	return madeBy{calls: map[*event.Call][]event.Frame{}, stacks: map[string][]event.Frame{}}
}

// add notes the stack that a call was made with. It forgets all calls when there are too many.
func (m *madeBy) add(c *event.Call, frames []event.Frame) {
	if len(m.calls) >= maxMade || len(m.stacks) >= maxMade {
		clear(m.calls)
		clear(m.stacks)
	}
	frames = frames[:min(len(frames), maxStack)]
	m.key = m.key[:0]
	for i := range frames {
		m.key = binary.LittleEndian.AppendUint64(m.key, frames[i].PC)
	}
	known := m.stacks[string(m.key)]
	if !slices.Equal(known, frames) {
		known = slices.Clone(frames)
		m.stacks[string(m.key)] = known
	}
	m.calls[c] = known
}
