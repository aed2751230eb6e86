package top

import (
	"context"
	"errors"
	"io"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
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
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var traced error
	counting, ended := make(chan *capture.Session, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer stop()
		sum, traced = capture.Trace(ctx, cfg, tally, func(s *capture.Session) error {
			ready(s)
			counting <- s
			return nil
		})
	}()
	select {
	case session := <-counting:
		m := New(c, tally)
		m.snapshot = func() correlate.Snapshot { return session.Snapshot(ctx) }
		err = m.Show(ctx, in, out, ended)
	case <-ended: // it could not begin
	}
	stop()
	<-ended
	return sum, errors.Join(err, traced)
}
