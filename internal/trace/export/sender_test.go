package export

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// absent is a collector that does not answer until it is back.
type absent struct {
	mu    sync.Mutex
	back  bool
	taken int
}

func (c *absent) UploadTraces(_ context.Context, spans []*tracepb.ResourceSpans) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.back {
		return &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	}
	c.taken += CountSpans(spans)
	return nil
}

// TestSpansWhileTheCollectorIsUnavailable: the trace goes on; so many spans wait, and the
// rest is dropped and counted.
func TestSpansWhileTheCollectorIsUnavailable(t *testing.T) {
	const batch, batches = 256, maxSpansWaiting/256 + 10
	for name, back := range map[string]bool{"it comes back": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var warnings []string
				c := &absent{}
				s := NewSender(c, func(text string) {
					mu.Lock()
					defer mu.Unlock()
					warnings = append(warnings, text)
				})
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { s.Run(ctx) })
				for range batches {
					if err := s.Add(
						[]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: make([]*tracepb.Span,
							batch)}}}}); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				c.mu.Lock()
				c.back = back
				c.mu.Unlock()
				stop()
				running.Wait()
				sent, dropped := s.Finish(t.Context())
				want := 0
				if back {
					want = maxSpansWaiting
				}
				if sent != want || sent+dropped != 18944 || c.taken != want {
					t.Errorf("%d sent and %d dropped with %d taken, want %d", sent, dropped, c.taken, want)
				}
				if !strings.Contains(strings.Join(warnings, "\n"), "spans wait for the collector") {
					t.Errorf("there is no warning of it: %q", warnings)
				}
			})
		})
	}
}
