package inflight

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/live"
)

// show shows what is open each interval.
func (c Config) show(ctx context.Context, session *capture.Session, in io.Reader, out io.Writer,
	s terminal.Screen,
) error {
	l := NewLooker()
	defer l.Close()
	look := func() []Daemon { return l.Look(session.Libraries(), session.Snapshot(ctx)) }
	if !terminal.IsTerminal(out) || c.JSON {
		return c.print(ctx, out, s, look)
	}
	text := ""
	return live.Page{
		Interval: c.Interval, Count: c.Count,
		Refresh: func(width int) func() {
			s := s
			s.Width = cmp.Or(width, s.Width)
			var b strings.Builder
			_ = c.write(&b, s, look()) // a Builder takes everything
			return func() { text = b.String() }
		},
		Draw: func(_ int, paused bool) string {
			if paused {
				return "open calls, paused; space: go on, q: end\n" + text
			}
			return "open calls; space: pause, q: end\n" + text
		},
	}.Show(ctx, in, out)
}

// print writes what is open each interval, one after the other.
func (c Config) print(ctx context.Context, out io.Writer, s terminal.Screen, look func() []Daemon) error {
	tick := time.NewTicker(c.Interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		daemons := look()
		if ctx.Err() != nil {
			return nil
		}
		if n > 1 && !c.JSON {
			fmt.Fprintln(out)
		}
		if err := c.write(out, s, daemons); err != nil || n == c.Count {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
