package console

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Pace is how many entries were written lately, and how many usually are.
type Pace struct {
	Hour, Day           int64
	UsualHour, UsualDay int64 // on average of the seven days before this one
	Known               bool  // there were seven days before
}

// Pace returns how many entries were written in the last hour and day.
func (c *Console) Pace(ctx context.Context, now time.Time) (p Pace, err error) {
	size, err := c.Log.LogSize(ctx)
	if err != nil {
		return p, err
	}
	var at [3]int64
	for i, ago := range []time.Duration{time.Hour, 24 * time.Hour, 8 * 24 * time.Hour} {
		if at[i], err = c.sizeAt(ctx, now.Add(-ago), size); err != nil {
			return p, err
		}
	}
	p.Hour, p.Day, p.Known = size-at[0], size-at[1], at[2] > 0
	p.UsualDay, p.UsualHour = (at[1]-at[2])/7, (at[1]-at[2])/(7*24)
	return p, nil
}

// sizeAt returns how many entries there were at a time.
func (c *Console) sizeAt(ctx context.Context, t time.Time, size int64) (int64, error) {
	events, err := c.Log.Events(ctx, timeline.Filter{Since: t, Limit: 1})
	if err != nil || len(events) == 0 {
		return size, err
	}
	return events[0].Index, nil
}

// Reason is why something was refused or failed, and how often.
type Reason struct {
	Kind   string
	Reason string
	N      int64
	Query  Query // of such entries
}

// maxRefusals is how many of the newest refusals are counted by reason.
const maxRefusals = 1000

// Refusals returns what was refused or failed since a time, by reason, the most frequent
// first. Checks of the server are not among them. It counts the newest entries only, and reports
// whether there are more.
func (c *Console) Refusals(ctx context.Context, since time.Time) (list []Reason, partial bool, err error) {
	type key struct{ kind, reason string }
	at := map[key]int{}
	for _, o := range []postern.Outcome{postern.Refused, postern.Failed} {
		q := Query{Filter: timeline.Filter{Outcome: o, Since: since}}
		f := q.filter()
		f.Last, f.Limit = true, maxRefusals
		events, err := c.Log.Events(ctx, f)
		if err != nil {
			return nil, false, err
		}
		partial = partial || len(events) == maxRefusals
		for _, e := range events {
			if isCheck(e.Kind) {
				continue
			}
			k := key{e.Kind, e.Reason}
			if _, ok := at[k]; !ok {
				at[k] = len(list)
				q := q
				q.Kind = e.Kind
				list = append(list, Reason{Kind: e.Kind, Reason: e.Reason, Query: q})
			}
			list[at[k]].N += max(e.Count, 1)
		}
	}
	slices.SortStableFunc(list, func(a, b Reason) int { return cmp.Compare(b.N, a.N) })
	return list, partial, nil
}

func isCheck(kind string) bool { return len(kind) > 6 && kind[:6] == "check." }

// What findings are looked for in: so many of the newest entries of each check, which hosts
// write some of; and how long an agent that does not report is waited for, as long as the
// store knows it.
const (
	maxChecks      = 1000
	agentForgotten = 30 * 24 * time.Hour
)

// Findings returns the entries of checks whose last result is that something is wrong, the
// newest first, but not those of check.host and of hosts that were removed since. crowded are
// checks of which so many entries were written within 30 days that older findings are missed.
func (c *Console) Findings(ctx context.Context, now time.Time) (list []postern.Event, crowded []string, err error) {
	removed, err := c.Log.Events(ctx, timeline.Filter{Kind: postern.EventHostRemoved, Last: true, Limit: maxChecks})
	if err != nil {
		return nil, nil, err
	}
	for _, kind := range postern.EventKinds {
		if !isCheck(kind.Name) || kind.Name == postern.EventCheckHost {
			continue
		}
		events, err := c.Log.Events(ctx, timeline.Filter{Kind: kind.Name, Last: true, Limit: maxChecks})
		if err != nil {
			return nil, nil, err
		}
		if len(events) == maxChecks && now.Sub(events[0].Time) < agentForgotten {
			crowded = append(crowded, kind.Name)
		}
		list = append(list, stillWrong(events, removed, now)...)
	}
	slices.SortFunc(list, func(a, b postern.Event) int { return byIndex(b, a) })
	return list, crowded, nil
}

// stillWrong returns what one check found last.
func stillWrong(checks, removed []postern.Event, now time.Time) (list []postern.Event) {
	seen := map[[2]string]bool{}
	for _, e := range slices.Backward(checks) {
		key := [2]string{e.Object, e.Host}
		if seen[key] {
			continue
		}
		seen[key] = true
		if e.Outcome == postern.OK {
			continue
		}
		host := cmp.Or(e.Host, strings.TrimPrefix(e.Object, "joined:")) // as an agent's source is named
		gone := slices.ContainsFunc(removed, func(r postern.Event) bool {
			return r.Object == host && r.Index > e.Index
		})
		if !gone && (e.Kind != postern.EventCheckAgent || now.Sub(e.Time) < agentForgotten) {
			list = append(list, e)
		}
	}
	return list
}
