// Package live runs a trace and shows what it says meanwhile.
package live

import (
	"context"
	"errors"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
)

// Trace runs a trace with cfg, whose events go to sink, and show beside it. ctx of show
// ends with the trace; ended is closed once sink has all events. The trace ends when show
// returns. ready is called once events are seen. Trace returns what was seen and lost.
func Trace(ctx context.Context, cfg capture.Config, sink event.Sink, ready func(*capture.Session),
	show func(ctx context.Context, s *capture.Session, ended <-chan struct{}) error,
) (sum event.Summary, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var traced error
	begun, ended := make(chan *capture.Session, 1), make(chan struct{})
	go func() {
		defer close(ended)
		defer stop()
		sum, traced = capture.Trace(ctx, cfg, sink, func(s *capture.Session) error {
			ready(s)
			begun <- s
			return nil
		})
	}()
	select {
	case session := <-begun:
		err = show(ctx, session, ended)
	case <-ended: // it could not begin
	}
	stop()
	<-ended
	return sum, errors.Join(err, traced)
}
