package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

// followInterval is how often log follow looks for new entries.
const followInterval = 300 * time.Millisecond

func newLogFollow(a *app) *cobra.Command {
	var o logListOptions
	cmd := &cobra.Command{
		Use:   "follow",
		Short: "Print entries of the timeline as they are written",
		Long:  "Print the last entries of the timeline that match every flag, and then each new one, until interrupted.",
		Example: `  postern log follow --outcome refused
  postern log follow -n 0 --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logFollow(cmd.Context(), &o) },
	}
	o.flags(cmd, 10, "begin with at most so `MANY` entries that are there already")
	return cmd
}

func (a *app) logFollow(ctx context.Context, o *logListOptions) error {
	f, err := o.parse(time.Now())
	if err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	next, err := st.Store.Timeline().LogSize(ctx)
	if err != nil {
		return err
	}
	if f.Limit > 0 {
		last := f
		last.Last = true
		events, err := st.Store.Timeline().Events(ctx, last)
		if err != nil {
			return err
		}
		if err := a.printEvents(ctx, st.Store.Timeline(), before(events, next), o, true); err != nil {
			return err
		}
	}
	f.From, f.Limit = next, 0
	err = a.follow(ctx, st.Store, f, o)
	if errors.Is(err, context.Canceled) {
		return nil // interrupted: that is how it ends
	}
	return err
}

// follow prints new entries until ctx ends, and waits for a database that is
// unavailable.
func (a *app) follow(ctx context.Context, db *store.DB, f timeline.Filter, o *logListOptions) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	waiting := false
	for {
		next, err := a.printSince(ctx, db, f, o)
		switch {
		case err == nil:
			f.From, waiting = next, false
		case postern.CodeOf(err) != postern.Unavailable:
			return err
		case !waiting && ctx.Err() == nil:
			waiting = true
			fmt.Fprintf(a.err, "postern: %v; waiting for it\n", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// printSince prints the entries from f.From on and returns the index after them.
func (a *app) printSince(ctx context.Context, db *store.DB, f timeline.Filter, o *logListOptions) (int64, error) {
	size, err := db.Timeline().LogSize(ctx)
	if err != nil || size <= f.From {
		return f.From, err
	}
	events, err := db.Timeline().Events(ctx, f)
	if err != nil {
		return f.From, err
	}
	return size, a.printEvents(ctx, db.Timeline(), before(events, size), o, false)
}

// before returns the events whose index is below next: others were written
// meanwhile, and will come.
func before(events []postern.Event, next int64) []postern.Event {
	for len(events) > 0 && events[len(events)-1].Index >= next {
		events = events[:len(events)-1]
	}
	return events
}
