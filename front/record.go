package front

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// How events are gathered before they are written.
const (
	flushEvery = time.Second
	repeatIn   = time.Minute // an event like one that was written is written again, with a count, after this
	maxKinds   = 1024        // different events in that time; further ones are counted together
)

// recorder writes what happens at the gate to the timeline, from one goroutine:
// an event at once, and all that are like it in the minute after as one line
// that carries a count. So a flood of refusals is neither a flood of lines nor
// a way to slow the door.
type recorder struct {
	log     func(context.Context, ...postern.Event) error
	mu      sync.Mutex
	pending map[eventKey]*postern.Event
	written map[eventKey]time.Time
}

// eventKey is what makes two events alike.
type eventKey struct{ kind, person, serial, address, object, reason string }

func newRecorder(log func(context.Context, ...postern.Event) error) *recorder {
	return &recorder{log: log, pending: make(map[eventKey]*postern.Event), written: make(map[eventKey]time.Time)}
}

// add notes an event. It never waits for the store.
func (r *recorder) add(k eventKey, outcome postern.Outcome, links ...postern.Link) {
	if r.log == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.written[k]; !known && r.pending[k] == nil && len(r.pending)+len(r.written) >= maxKinds {
		k, links = eventKey{kind: k.kind, reason: "more than could be told apart"}, nil
	}
	if e, ok := r.pending[k]; ok {
		e.Count++
		return
	}
	r.pending[k] = &postern.Event{
		Time: time.Now().UTC(), Kind: k.kind, Outcome: outcome, Person: k.person, Address: k.address,
		Object: k.object, Reason: k.reason, Count: 1, Links: links,
	}
}

// run writes what was gathered, every second, and all of it at the end.
func (r *recorder) run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			r.flush(last, true)
			return
		case <-tick.C:
			r.flush(ctx, false)
		}
	}
}

// flush writes what is due. What the store does not take stays pending and
// goes on gathering counts.
func (r *recorder) flush(ctx context.Context, all bool) {
	keys, events := r.due(time.Now(), all)
	if len(events) == 0 {
		return
	}
	err := r.log(ctx, events...)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, k := range keys {
		switch e, again := r.pending[k]; {
		case err == nil:
			r.written[k] = time.Now()
		case again:
			e.Count += events[i].Count
			e.Time = events[i].Time
		default:
			r.pending[k] = &events[i]
		}
	}
}

// due takes out the pending events that were not written lately, in their
// order.
func (r *recorder) due(now time.Time, all bool) (keys []eventKey, events []postern.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, at := range r.written {
		if now.Sub(at) >= repeatIn {
			delete(r.written, k)
		}
	}
	for k := range r.pending {
		if _, lately := r.written[k]; !lately || all {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b eventKey) int { return r.pending[a].Time.Compare(r.pending[b].Time) })
	for _, k := range keys {
		events = append(events, *r.pending[k])
		delete(r.pending, k)
	}
	return keys, events
}
