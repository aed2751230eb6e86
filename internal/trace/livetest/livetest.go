// Package livetest runs traces in tests.
package livetest

import (
	"context"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
)

// Run runs a trace while do runs. It fails the test if the trace does, or loses
// events. Only one trace that is measured runs at a time: see posterntest.TraceAlone.
func Run(t testing.TB, do func(), trace func(ctx context.Context, ready func(*capture.Session)) (event.Summary,
	error),
) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	type end struct {
		sum event.Summary
		err error
	}
	ready, ended := make(chan struct{}), make(chan end, 1)
	go func() {
		sum, err := trace(ctx, func(*capture.Session) { close(ready) })
		ended <- end{sum, err}
	}()
	select {
	case <-ready:
	case e := <-ended:
		t.Fatalf("the trace does not begin: %v", e.err)
	}
	do()
	stop()
	if e := <-ended; e.err != nil || len(e.sum.Losses) > 0 {
		t.Fatalf("the trace ends with %v: %v", e.sum, e.err)
	}
}
