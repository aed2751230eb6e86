package directory

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/postern-project/postern"
)

// Syncer keeps a store like a directory.
type Syncer struct {
	Config Config
	Store  Store
	Log    *slog.Logger
}

// Run reads the directory until ctx ends: at once, and then every Config.Refresh.
func (s Syncer) Run(ctx context.Context) {
	c := s.Config.WithDefaults()
	said := saying{log: s.Log.With(slog.String(postern.LogDirectory, c.Name))}
	tick := time.NewTicker(c.Refresh)
	defer tick.Stop()
	for {
		changes, err := Sync(ctx, c, s.Store)
		if ctx.Err() != nil {
			return
		}
		said.next(ctx, changes, err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// saying logs what happens, and what goes on once.
type saying struct {
	log     *slog.Logger
	failed  string // why the directory cannot be read
	skipped int    // entries that could not be taken
}

func (s *saying) next(ctx context.Context, c Changes, err error) {
	if !c.Empty() {
		s.log.InfoContext(ctx, "people are as in the directory now", slog.String(postern.LogReason,
			fmt.Sprintf("%d added, %d changed, %d suspended, %d resumed",
				len(c.Added), len(c.Changed), len(c.Suspended), len(c.Resumed))))
	}
	if err != nil {
		if s.failed != err.Error() {
			s.failed = err.Error()
			s.log.ErrorContext(ctx, "the directory cannot be read", slog.Any(postern.LogError, err))
		}
		return
	}
	if s.failed != "" {
		s.failed = ""
		s.log.InfoContext(ctx, "the directory can be read again")
	}
	if n := len(c.Skipped); n != s.skipped {
		if s.skipped = n; n > 0 {
			s.log.WarnContext(ctx, "entries of the directory cannot be taken", slog.Int(postern.LogCount, n),
				slog.String(postern.LogReason, c.Skipped[0]))
		}
	}
}

// Sync reads a directory once and makes a store like it, or notes there that it could not
// be read, and returns why.
func Sync(ctx context.Context, c Config, store Store) (Changes, error) {
	c = c.WithDefaults()
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	snapshot, err := Read(limited, c)
	if err != nil {
		if ctx.Err() != nil {
			return Changes{}, err
		}
		changes, failed := store.Failed(ctx, c.Name, err.Error(), c.Keep)
		if failed != nil {
			return changes, failed
		}
		return changes, err
	}
	return store.Sync(ctx, c.Name, snapshot)
}
