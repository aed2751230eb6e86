//go:build linux

package capture

import (
	"context"

	"github.com/postern-project/postern/internal/trace/correlate"
)

// Snapshot returns what is open now, while [Session.Run] runs: nothing once ctx has
// ended. It may be called from another goroutine.
func (s *Session) Snapshot(ctx context.Context) correlate.Snapshot {
	answer := make(chan correlate.Snapshot, 1)
	s.asked.add(answer)
	select {
	case snapshot := <-answer:
		return snapshot
	case <-ctx.Done():
		return correlate.Snapshot{}
	}
}

// answer gives their snapshots to those who have asked.
func (s *Session) answer() {
	for _, answer := range s.asked.take() {
		answer <- s.pipeline.Snapshot(s.drained)
	}
}
