package console

import (
	"context"
	"time"

	"github.com/postern-project/postern"
)

// Histogram is how many entries a query selects over time, by how they ended.
type Histogram struct {
	From    time.Time
	Step    time.Duration
	Columns []Counts
	Entries int
	Partial bool // there are more: only the newest are counted
}

// Counts is how many entries ended in which way.
type Counts struct{ OK, Refused, Failed, Unknown int64 }

// Sum returns how many entries there are.
func (c Counts) Sum() int64 { return c.OK + c.Refused + c.Failed + c.Unknown }

func (c *Counts) add(o postern.Outcome) {
	switch o {
	case postern.OK:
		c.OK++
	case postern.Refused:
		c.Refused++
	case postern.Failed:
		c.Failed++
	default:
		c.Unknown++
	}
}

const (
	maxCounted = 2500 // entries, of a histogram
	maxColumns = 60
)

// steps are what the columns of a histogram may stand for.
var steps = []time.Duration{
	time.Second, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour,
	6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour,
}

// Histogram counts the newest entries that a query selects, whichever page is shown.
func (c *Console) Histogram(ctx context.Context, q Query, now time.Time) (h Histogram, err error) {
	f := q.filter()
	f.Before, f.Last, f.Limit = 0, true, maxCounted
	events, err := c.Log.Events(ctx, f)
	if err != nil {
		return h, err
	}
	h.Partial = len(events) == maxCounted
	var counted []postern.Event
	to := now
	if !q.Until.IsZero() {
		to = q.Until
	}
	from := to
	if !q.Since.IsZero() && q.Since.Before(to) && !h.Partial {
		from = q.Since
	}
	for _, e := range events {
		if !q.hasWords(e) {
			continue
		}
		counted = append(counted, e)
		if e.Time.Before(from) {
			from = e.Time
		}
		if e.Time.After(to) {
			to = e.Time
		}
	}
	h.Entries = len(counted)
	h.divide(from, to)
	for _, e := range counted {
		h.Columns[e.Time.Sub(h.From)/h.Step].add(e.Outcome)
	}
	return h, nil
}

// divide sets the columns: at most maxColumns, which begin at round times.
func (h *Histogram) divide(from, to time.Time) {
	for _, h.Step = range steps {
		if to.Sub(from) < h.Step*(maxColumns-1) {
			break
		}
	}
	h.From = from.UTC().Truncate(h.Step)
	h.Columns = make([]Counts, to.Sub(h.From)/h.Step+1)
}
