package top

import (
	"context"
	"io"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/live"
)

// Trace counts the calls of a trace with cfg and shows them until ctx ends, the reader
// ends it, or all intervals are over. It returns what was seen and lost. ready is
// called once calls are seen.
func (c Config) Trace(
	ctx context.Context, cfg capture.Config, in io.Reader, out io.Writer, ready func(*capture.Session),
) (sum event.Summary, err error) {
	if err := c.Validate(); err != nil {
		return sum, err
	}
	tally, err := format.NewTally(format.By(c.By))
	if err != nil {
		return sum, err
	}
	if c.By == string(format.ByDomain) && len(cfg.Filter.Domains) == 0 {
		cfg.Filter.Domains = []string{"*"} // look for them in the messages
	}
	cfg.Queue = true
	return live.Trace(ctx, cfg, tally, ready,
		func(ctx context.Context, s *capture.Session, ended <-chan struct{}) error {
			m := New(c, tally)
			m.snapshot = func() correlate.Snapshot { return s.Snapshot(ctx) }
			return m.Show(ctx, in, out, ended)
		})
}
