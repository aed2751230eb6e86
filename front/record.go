package front

import (
	"context"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// How events are gathered before they are written.
const (
	flushEvery = time.Second
	maxPending = 4096 // different events in one second; further ones are counted together
)

// recorder writes what happens at the gate to the timeline, from one goroutine
// and with equal events of one second as one line that carries a count, so that a
// flood of refusals is neither a flood of lines nor a way to slow the door.
type recorder struct {
	log     func(context.Context, ...postern.Event) error
	mu      sync.Mutex
	pending map[eventKey]*postern.Event
	order   []eventKey
}

// eventKey is what makes two events equal.
type eventKey struct{ kind, person, serial, address, object, reason string }

func newRecorder(log func(context.Context, ...postern.Event) error) *recorder {
	return &recorder{log: log, pending: make(map[eventKey]*postern.Event)}
}

// add notes an event. It never blocks on the store.
func (r *recorder) add(k eventKey, outcome postern.Outcome, links ...postern.Link) {
	if r.log == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.pending[k]; ok {
		e.Count++
		return
	}
	if len(r.pending) >= maxPending {
		k = eventKey{kind: k.kind, reason: "more than could be told apart"}
		links = nil
		if e, ok := r.pending[k]; ok {
			e.Count++
			return
		}
	}
	r.pending[k] = &postern.Event{
		Time: time.Now().UTC(), Kind: k.kind, Outcome: outcome, Person: k.person, Address: k.address,
		Object: k.object, Reason: k.reason, Count: 1, Links: links,
	}
	r.order = append(r.order, k)
}

// run writes what was gathered, every second and once more at the end.
func (r *recorder) run(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			r.flush(last)
			return
		case <-tick.C:
			r.flush(ctx)
		}
	}
}

// flush writes what is pending. What the store does not take stays pending and
// goes on gathering counts.
func (r *recorder) flush(ctx context.Context) {
	r.mu.Lock()
	events := make([]postern.Event, 0, len(r.order))
	for _, k := range r.order {
		events = append(events, *r.pending[k])
	}
	keys := r.order
	r.order, r.pending = nil, make(map[eventKey]*postern.Event)
	r.mu.Unlock()
	if len(events) == 0 || r.log(ctx, events...) == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, k := range keys {
		if e, ok := r.pending[k]; ok {
			e.Count += events[i].Count
			e.Time = events[i].Time
		} else if len(r.pending) < 2*maxPending {
			r.pending[k] = &events[i]
			r.order = append(r.order, k)
		}
	}
}
