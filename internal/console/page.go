package console

import (
	"context"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Page is a part of the timeline, newest first.
type Page struct {
	Lines []Line
	Older int64 // what comes behind has smaller indices than this; 0: nothing does
	// Partial says that the search for words or a strength ended before the page was full,
	// having looked at as many entries as a page may.
	Partial bool
}

// What a page shows, and at how many entries it looks for that.
const (
	pageLines  = 50
	scanChunk  = 250
	maxScanned = 4000 // for words
	maxJoined  = 500  // for a strength, for which entries are joined
)

// Page returns the newest entries that a query selects, behind those that it has left
// behind with Before. It looks at a bounded number of entries.
func (c *Console) Page(ctx context.Context, q Query) (p Page, err error) {
	f := q.filter()
	f.Last, f.Limit = true, pageLines+1
	if !q.judged() {
		events, err := c.Log.Events(ctx, f)
		if err != nil {
			return p, err
		}
		if len(events) > pageLines {
			events = events[1:]
			p.Older = events[0].Index
		}
		p.Lines, err = c.lines(ctx, q, events)
		return p, err
	}
	return c.search(ctx, q, f)
}

// search looks at entries one by one until a page is full.
func (c *Console) search(ctx context.Context, q Query, f timeline.Filter) (p Page, err error) {
	most := maxScanned
	if q.Strength != "" {
		most = maxJoined
	}
	f.Limit = scanChunk
	for scanned := 0; scanned < most; scanned += scanChunk {
		events, err := c.Log.Events(ctx, f)
		if err != nil {
			return p, err
		}
		lines, err := c.lines(ctx, q, events)
		if err != nil {
			return p, err
		}
		p.Lines = append(p.Lines, lines...)
		switch {
		case len(p.Lines) > pageLines:
			p.Lines = p.Lines[:pageLines]
			p.Older = p.Lines[pageLines-1].Index
			return p, nil
		case len(events) < scanChunk:
			return p, nil
		}
		f.Before = events[0].Index
	}
	p.Older, p.Partial = f.Before, true
	return p, nil
}

// lines returns those of the events that the query selects, as lines, the last one first.
func (c *Console) lines(ctx context.Context, q Query, events []postern.Event) (list []Line, err error) {
	src := newEvidence(c.Log)
	for _, e := range slices.Backward(events) {
		if !q.hasWords(e) || q.Strength != "" && e.Host == "" {
			continue
		}
		l, err := src.line(ctx, e)
		if err != nil {
			return nil, err
		}
		if q.Strength == "" || l.Strength == q.Strength {
			list = append(list, l)
		}
	}
	return list, nil
}
