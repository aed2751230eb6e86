package report

import (
	"testing"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// TestStacksOfOpenCallsAreBounded has calls without an answer, with deep stacks that are equal or
// all differ: what is held of them is a part of what a recording can say.
func TestStacksOfOpenCallsAreBounded(t *testing.T) {
	const deep = 1024
	for name, c := range map[string]struct {
		pc   func(call int) uint64
		most int // frames held
	}{
		"equal":     {func(int) uint64 { return 1 }, maxStack},
		"different": {func(call int) uint64 { return uint64(call) }, maxMade * maxStack},
	} {
		g := newGatherer()
		frames := make([]event.Frame, deep)
		for i := range 3 * maxMade {
			e := tracetest.Message(1, event.ClientTx, 22, 0, 0, uint32(i), nil)
			frames[0].PC = c.pc(i)
			e.Call, e.Frames = &event.Call{}, frames
			g.message(e)
		}
		held := map[*event.Frame]int{}
		for _, stack := range g.made.calls {
			held[&stack[0]] = len(stack)
		}
		total := 0
		for _, n := range held {
			total += n
		}
		if total == 0 || total > c.most || len(g.made.calls) > maxMade {
			t.Errorf("%s: %d frames are held of %d calls", name, total, len(g.made.calls))
		}
	}
}
