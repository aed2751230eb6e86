package export

import (
	"context"
	"sync"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
)

// Live says where the spans of a running trace go.
type Live struct {
	Collector     Collector
	Host, Version string       // see [SpansConfig]
	Warn          func(string) // is called from another goroutine
}

// Trace sends the calls of a trace with c as spans until ctx ends. It returns what was
// seen and lost, and how many spans the collector took and how many were dropped.
// ready is called once calls are seen.
func (l Live) Trace(
	ctx context.Context, c capture.Config, ready func(*capture.Session),
) (sum event.Summary, sent, dropped int, err error) {
	c.Queue = true
	sender := NewSender(l.Collector, l.Warn)
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { sender.Run(sending) })
	sink := NewSpans(SpansConfig{Host: l.Host, Version: l.Version, Send: sender.Add})
	sum, err = capture.Trace(ctx, c, sink, func(s *capture.Session) error { ready(s); return nil })
	stop()
	running.Wait()
	sent, dropped = sender.Finish(context.WithoutCancel(ctx))
	return sum, sent, dropped, err
}
