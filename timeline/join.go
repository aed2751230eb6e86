package timeline

import (
	"cmp"
	"context"
	"slices"

	"github.com/postern-project/postern"
)

// MaxJoined bounds how many events a join returns.
const MaxJoined = 1000

// narrow reports whether a link stands for one session, process, connection or login:
// events that share it belong together. A credential or a virtual machine is
// shared by everything that was ever done with it, so a join does not follow it.
func narrow(l postern.Link) bool {
	switch l.Kind {
	case postern.LinkSession, postern.LinkProcess, postern.LinkConnection, postern.LinkLogin:
		return true
	}
	return false
}

// Join returns the events that belong to e: those that share a session, a
// process or a connection with it, or with another that belongs to it. e itself
// is among them; they are in order, and at most [MaxJoined].
func Join(ctx context.Context, src Source, e postern.Event) ([]postern.Event, error) {
	j := newJoiner(src)
	j.add(e)
	return j.run(ctx)
}

// JoinAt returns the event with an index, and the events that belong to it as Join does.
// It fails with [postern.NotFound] if there is none. A source may have a method
// Elsewhere(ctx, index) whose error says where an entry is that the source does not have.
func JoinAt(ctx context.Context, src Source, index int64) (e postern.Event, joined []postern.Event, err error) {
	found, err := src.Events(ctx, Filter{From: index, Limit: 1})
	if err != nil {
		return e, nil, err
	}
	if len(found) == 0 || found[0].Index != index {
		if s, ok := src.(interface {
			Elsewhere(ctx context.Context, index int64) error
		}); ok {
			if err := s.Elsewhere(ctx, index); err != nil {
				return e, nil, err
			}
		}
		return e, nil, postern.Errorf(postern.NotFound, "the timeline has no entry %d", index)
	}
	joined, err = Join(ctx, src, found[0])
	return found[0], joined, err
}

type joiner struct {
	src    Source
	kinds  []string // the only ones that are joined, as [Filter.Kind] selects them
	queue  []postern.Link
	seen   map[postern.Link]bool
	events map[int64]postern.Event
}

func newJoiner(src Source) *joiner {
	return &joiner{src: src, kinds: []string{""}, seen: map[postern.Link]bool{}, events: map[int64]postern.Event{}}
}

func (j *joiner) follow(l postern.Link) {
	if !j.seen[l] {
		j.seen[l] = true
		j.queue = append(j.queue, l)
	}
}

func (j *joiner) add(e postern.Event) {
	if _, ok := j.events[e.Index]; ok || len(j.events) >= MaxJoined {
		return
	}
	j.events[e.Index] = e
	for _, l := range e.Links {
		if narrow(l) {
			j.follow(l)
		}
	}
}

func (j *joiner) run(ctx context.Context) ([]postern.Event, error) {
	for len(j.queue) > 0 && len(j.events) < MaxJoined {
		link := j.queue[0]
		j.queue = j.queue[1:]
		for _, kind := range j.kinds {
			found, err := j.src.Events(ctx, Filter{Link: link, Kind: kind, Limit: MaxJoined})
			if err != nil {
				return nil, err
			}
			for _, e := range found {
				j.add(e)
			}
		}
	}
	joined := make([]postern.Event, 0, len(j.events))
	for _, e := range j.events {
		joined = append(joined, e)
	}
	slices.SortFunc(joined, func(a, b postern.Event) int { return cmp.Compare(a.Index, b.Index) })
	return joined, nil
}
