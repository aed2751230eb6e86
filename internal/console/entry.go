package console

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/chart"
	"github.com/postern-project/postern/timeline"
)

// Entry is an entry of the timeline with what it rests on.
type Entry struct {
	postern.Event
	Line      Line
	Joined    []Line // what belongs to it, in order, itself among them
	Lanes     chart.Timeline
	Witnesses []timeline.Witnessed
}

// Entry returns the entry with an index: NotFound if there is none.
func (c *Console) Entry(ctx context.Context, index int64) (Entry, error) {
	e, joined, err := timeline.JoinAt(ctx, c.Log, index)
	if err != nil {
		return Entry{}, err
	}
	entry := Entry{Event: e, Line: newLine(e, joined), Lanes: lanes(joined)}
	if entry.Witnesses, err = c.Log.Witnesses(ctx); err != nil {
		return entry, err
	}
	src := newEvidence(c.Log)
	for _, j := range around(joined, index) {
		l, err := src.line(ctx, j)
		if err != nil {
			return entry, err
		}
		entry.Joined = append(entry.Joined, l)
	}
	return entry, nil
}

// maxShown is how many joined entries a page lists.
const maxShown = 60

// around returns at most maxShown of the joined entries: the first ones, which say who it
// was, and those about the entry itself.
func around(joined []postern.Event, index int64) []postern.Event {
	if len(joined) <= maxShown {
		return joined
	}
	at := slices.IndexFunc(joined, func(j postern.Event) bool { return j.Index == index })
	first := min(max(at-maxShown/4, maxShown/2), len(joined)-maxShown/2)
	return slices.Concat(joined[:maxShown/2], joined[first:first+maxShown/2])
}

// stage is a lane of joined entries: those of some kinds, nil for all others.
type stage struct {
	name  string
	kinds []string
}

var stages = []stage{
	{"Sign-in", []string{postern.EventSSHAuth, postern.EventPAMAuth, postern.EventSignedIn}},
	{"Code", []string{postern.EventOTP}},
	{"Session", []string{
		postern.EventSSHOpened, postern.EventSSHClosed, postern.EventPAMOpened, postern.EventPAMClosed,
	}},
	{"libvirt calls", []string{postern.EventLibvirtCall}},
	{"Others", nil},
}

// lanes draws joined entries over time. What ends at the same time as it begins is as wide
// as can be seen.
func lanes(joined []postern.Event) chart.Timeline {
	from, to := span(joined)
	t := chart.Timeline{Label: "What belongs together, over time", Span: max(to.Sub(from), time.Millisecond)}
	seen := t.Span / 200
	bars := make([][]chart.Bar, len(stages))
	for _, j := range joined {
		at := slices.IndexFunc(stages, func(s stage) bool {
			return s.kinds == nil || slices.Contains(s.kinds, j.Kind)
		})
		if j.Kind == postern.EventSSHClosed || j.Kind == postern.EventPAMClosed {
			continue // the end of a bar
		}
		b := chart.Bar{
			From: j.Time.Sub(from) - j.Took, Took: max(j.Took, seen), Title: timeline.Sentence(j, joined),
			Link: fmt.Sprintf("#entry-%d", j.Index),
		}
		if end, ok := endOf(j, joined); ok {
			b.Took = max(end.Sub(j.Time), seen)
		} else if stages[at].name == "Session" {
			b.Took, b.Class = max(t.Span-b.From, seen), "open"
		}
		b.From = max(min(b.From, t.Span-seen), 0)
		if j.Outcome == postern.Refused || j.Outcome == postern.Failed {
			b.Class = "failed"
		}
		bars[at] = append(bars[at], b)
	}
	for i, list := range bars {
		if len(list) > 0 {
			t.Lanes = append(t.Lanes, chart.Lane{Name: stages[i].name, Note: strconv.Itoa(len(list)), Bars: list})
		}
	}
	return t
}

// span returns from when to when events were.
func span(events []postern.Event) (from, to time.Time) {
	for _, e := range events {
		if begun := e.Time.Add(-e.Took); from.IsZero() || begun.Before(from) {
			from = begun
		}
		if e.Time.After(to) {
			to = e.Time
		}
	}
	return from, to
}

// endOf returns when a session ended.
func endOf(opened postern.Event, joined []postern.Event) (time.Time, bool) {
	ends := map[string]string{
		postern.EventSSHOpened: postern.EventSSHClosed, postern.EventPAMOpened: postern.EventPAMClosed,
	}[opened.Kind]
	for _, j := range joined {
		if ends != "" && j.Kind == ends && j.Index > opened.Index && sharesProcess(opened, j) {
			return j.Time, true
		}
	}
	return time.Time{}, false
}

func sharesProcess(a, b postern.Event) bool {
	return slices.ContainsFunc(a.Links, func(l postern.Link) bool {
		return l.Kind == postern.LinkProcess && slices.Contains(b.Links, l)
	})
}
