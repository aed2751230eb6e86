// Package show shows traces in a format, live or as they were recorded.
package show

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/stack"
)

// Namer returns what names the functions in stacks. It fetches nothing more once ctx has ended.
type Namer func(ctx context.Context) *stack.Namer

// Live writes to w what a trace with c sees until ctx ends, and returns what was seen and
// lost. ready is called once events are seen. Functions get their names by the way: the
// trace does not wait for them.
func Live(
	ctx context.Context, c capture.Config, w *format.Writer, namer Namer, ready func(*capture.Session),
) (event.Summary, error) {
	sink := stack.Naming{Sink: w}
	if c.Stack {
		naming, stop := context.WithCancel(ctx)
		sink.Namer = namer(naming)
		sink.Namer.Background = true
		defer sink.Namer.Close()
		defer stop()
	}
	sum, err := capture.Trace(ctx, c, sink, func(s *capture.Session) error {
		ready(s)
		return w.Begin(system.Monotonic(), time.Now())
	})
	if err == nil {
		err = w.End(sum.Seen, sum.Losses)
	}
	return sum, err
}

// Recorded writes to w what c takes of the recording of that name, and returns what was seen
// and lost: nothing where it cannot be read.
func Recorded(
	ctx context.Context, in io.Reader, name string, c capture.Config, w *format.Writer, namer Namer,
) (event.Summary, error) {
	sink := stack.Naming{Sink: &format.Replay{Writer: w, Stacks: c.Stack}}
	if c.Stack {
		sink.Namer = namer(ctx)
	}
	sum, err := record.Replay(in, c.Filter, c.Tree, sink)
	if err != nil {
		return event.Summary{}, fmt.Errorf("%s: %w", name, err)
	}
	return sum, w.End(sum.Seen, sum.Losses)
}
