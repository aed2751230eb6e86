package timeline

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// Follower calls Entries with entries of the timeline as they are written.
type Follower struct {
	Source interface {
		Source
		// LogSize returns how many entries there are.
		LogSize(ctx context.Context) (int64, error)
	}
	Filter   Filter        // Limit entries that are there already come first
	Interval time.Duration // between two looks at the source
	// Entries takes entries in the order of their index. An error ends Follow.
	Entries func([]postern.Event) error
	// Unavailable is called when the source becomes unavailable, which is waited for.
	Unavailable func(error)
}

// Follow returns nil when ctx ends, or the error that ended it.
func (f Follower) Follow(ctx context.Context) error {
	err := f.first(ctx)
	tick := time.NewTicker(f.Interval)
	defer tick.Stop()
	for waiting := false; err == nil; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err = f.next(ctx)
		if postern.CodeOf(err) != postern.Unavailable {
			waiting = false
			continue
		}
		if !waiting && ctx.Err() == nil {
			f.Unavailable(err)
		}
		waiting, err = true, nil
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// first hands over the last entries that are there, and sets f.Filter to those that
// come.
func (f *Follower) first(ctx context.Context) error {
	size, err := f.Source.LogSize(ctx)
	if err != nil {
		return err
	}
	if last := f.Filter; last.Limit > 0 {
		last.Last = true
		if err := f.until(ctx, last, size); err != nil {
			return err
		}
	}
	f.Filter.From, f.Filter.Limit = size, 0
	return nil
}

// next hands over the entries that have come.
func (f *Follower) next(ctx context.Context) error {
	size, err := f.Source.LogSize(ctx)
	if err != nil || size <= f.Filter.From {
		return err
	}
	if err := f.until(ctx, f.Filter, size); err != nil {
		return err
	}
	f.Filter.From = size
	return nil
}

// until hands over the entries whose index is below size: others were written
// meanwhile, and come next.
func (f *Follower) until(ctx context.Context, filter Filter, size int64) error {
	events, err := f.Source.Events(ctx, filter)
	if err != nil {
		return err
	}
	for len(events) > 0 && events[len(events)-1].Index >= size {
		events = events[:len(events)-1]
	}
	if len(events) == 0 {
		return nil
	}
	return f.Entries(events)
}
