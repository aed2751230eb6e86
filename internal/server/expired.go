package server

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/postern-project/postern"
)

// removeEvery is how often a server removes what has expired, and defaultKept how long it
// is kept unless the configuration says so.
const (
	removeEvery = time.Hour
	defaultKept = 365 * 24 * time.Hour
)

// keepRemoving removes certificates that expired long ago, until ctx ends.
func (s *server) keepRemoving(ctx context.Context) {
	every(ctx, removeEvery, func() {
		kept := cmp.Or(time.Duration(s.kept.Load()), defaultKept)
		n, err := s.state.Store.CA().RemoveExpired(ctx, time.Now(), kept)
		switch {
		case err != nil && ctx.Err() == nil:
			s.log.ErrorContext(ctx, "expired certificates are not removed", slog.Any(postern.LogError, err))
		case n > 0:
			s.log.InfoContext(ctx, "expired certificates are removed", slog.Int(postern.LogCount, n))
		}
	})
}
