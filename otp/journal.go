package otp

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

const (
	journalWindow  = 10 * time.Second // refusals of one sort are one line in this time
	journalBuckets = 1000             // sorts told apart in one window
	journalBacklog = 10_000           // lines that wait for a timeline that is away
	journalTimeout = 5 * time.Second  // for writing to the timeline
)

// journal writes refusals to the timeline. The first of a sort is written at
// once; those that follow within a window become one line with a count, so that
// a flood costs the timeline nothing and hides nothing.
type journal struct {
	log    Log
	now    func() time.Time
	logger *slog.Logger

	mu      sync.Mutex
	buckets map[sort]*bucket
	queue   []postern.Event
	closed  bool
	wake    chan struct{} // holds one: there is something in the queue, or closed
	done    chan struct{} // closed when the writer has gone
}

// sort is what makes two refusals the same line.
type sort struct{ reason, object, address, client string }

type bucket struct {
	event postern.Event // the newest
	more  int64         // how many beside the first
}

func newJournal(log Log, now func() time.Time, logger *slog.Logger) *journal {
	j := &journal{
		log: log, now: now, logger: logger,
		buckets: map[sort]*bucket{},
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	go j.write()
	return j
}

// record notes a refusal. It does not wait for the timeline.
func (j *journal) record(e postern.Event) {
	s := sort{e.Reason, e.Object, e.Address, e.Details["client"]}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	if len(j.buckets) >= journalBuckets && j.buckets[s] == nil {
		s = sort{reason: e.Reason}
		e.Object, e.Address, e.Person, e.Links = "", "", "", nil
	}
	if b := j.buckets[s]; b != nil {
		b.event = e
		b.more++
		return
	}
	j.buckets[s] = &bucket{}
	j.queue = append(j.queue, e)
	j.signal()
}

func (j *journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// close writes what is left and waits for the writer.
func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.signal()
	<-j.done
}

// write is the one writer: at once for what is new, and at the end of each
// window for what has been counted.
func (j *journal) write() {
	defer close(j.done)
	tick := time.NewTicker(journalWindow)
	defer tick.Stop()
	for {
		counted := false
		select {
		case <-j.wake:
		case <-tick.C:
			counted = true
		}
		j.mu.Lock()
		events, closed := j.queue, j.closed
		j.queue = nil
		if counted || closed {
			events = append(events, j.drain()...)
		}
		j.mu.Unlock()
		j.append(events)
		if closed {
			return
		}
	}
}

// drain ends the window: what was counted in it becomes lines. The caller holds
// the lock.
func (j *journal) drain() []postern.Event {
	var events []postern.Event
	for s, b := range j.buckets {
		if b.more > 0 {
			b.event.Count = b.more
			events = append(events, b.event)
		}
		delete(j.buckets, s)
	}
	return events
}

// append writes events. If the timeline is away they wait for the next window,
// as many as there is room for.
func (j *journal) append(events []postern.Event) {
	if len(events) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), journalTimeout)
	defer cancel()
	err := j.log.Append(ctx, events...)
	if err == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue = append(events, j.queue...)
	lost := max(0, len(j.queue)-journalBacklog)
	if j.closed {
		lost = len(j.queue)
	}
	j.queue = j.queue[:len(j.queue)-lost]
	j.logger.Error("refused one-time passwords are not on the timeline yet",
		postern.LogCount, len(j.queue), postern.LogLost, lost, postern.LogError, err)
}
