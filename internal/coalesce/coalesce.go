// Package coalesce writes floods of similar events as a few events with a count. So a
// client that causes them neither fills the timeline nor slows the server down, and all
// of them are recorded.
package coalesce

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
)

const (
	window    = 10 * time.Second // for which events like one that was written are counted, at first
	maxWindow = 5 * time.Minute  // to which the window doubles while more of them come
	maxKinds  = 1000             // different events at a time; further ones are counted together
	retry     = time.Second      // after which a failed write is tried again
	timeout   = 5 * time.Second  // of a write
)

// Config says where events go. Append is needed.
type Config struct {
	// Append writes events, all or none. It is called by one goroutine at a time.
	Append func(ctx context.Context, events ...postern.Event) error
	// Also returns what makes events differ besides kind, outcome, host, person,
	// address, object, reason, and links but those to a process, session, connection
	// or login; nil: nothing.
	Also func(postern.Event) string
	// Failed is called when events could not be written. They are kept, and later ones
	// are added to their counts. It may be nil.
	Failed func(error)
}

// LastSeen is the detail of an event that counts several: when the last of them
// happened, RFC 3339. Its Time is that of the first.
const LastSeen = "last"

// Writer writes the first of similar events at once, and those that follow as one event
// with a count at the end of a window. It is safe for concurrent use. Close it. A nil
// Writer drops events.
type Writer struct {
	config Config
	wake   chan struct{}
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}
	turn   sync.Mutex // held while writing

	mu     sync.Mutex
	known  map[likeness]*entry
	failed bool // the last write did

	reported int64 // of what waits, in unwritten
}

// unwritten is how many events wait in all writers whose last write failed.
var unwritten atomic.Int64

// Unwritten returns how many events wait in this process because they could not be
// written when that was last tried.
func Unwritten() int64 { return unwritten.Load() }

type likeness struct {
	kind, host, person, address, object, reason, links, also string
	outcome                                                  postern.Outcome
}

// entry is the state of similar events.
type entry struct {
	waiting postern.Event // not written yet; Count is 0 if there is none
	last    time.Time     // of the newest in it
	window  time.Duration // that follows when it is written
	until   time.Time     // when it is due
}

// Start returns a Writer.
func Start(c Config) *Writer {
	w := &Writer{
		config: c, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		known: map[likeness]*entry{},
	}
	go w.run()
	return w
}

// Add adds an event. It never waits for Append. An event without a time gets the
// current one.
func (w *Writer) Add(e postern.Event) {
	if w == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	e.Count = max(e.Count, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.likeness(e)
	if w.known[k] == nil && len(w.known) >= maxKinds {
		e = postern.Event{
			Time: e.Time, Kind: e.Kind, Outcome: e.Outcome, Count: e.Count,
			Reason: "too many different events to list",
		}
		k = likeness{kind: e.Kind, outcome: e.Outcome, reason: e.Reason}
	}
	w.merge(k, e, e.Time)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Writer) likeness(e postern.Event) likeness {
	k := likeness{
		kind: e.Kind, host: e.Host, person: e.Person, address: e.Address, object: e.Object, reason: e.Reason,
		outcome: e.Outcome,
	}
	for _, l := range e.Links {
		switch l.Kind {
		case postern.LinkProcess, postern.LinkSession, postern.LinkConnection, postern.LinkLogin:
			// each occurrence has its own
			continue
		}
		k.links += l.Kind + "\x00" + l.ID + "\x00"
	}
	if w.config.Also != nil {
		k.also = w.config.Also(e)
	}
	return k
}

// merge adds an event to the waiting ones. last is the time of the latest that it
// counts. The earliest one represents all. The caller holds the lock.
func (w *Writer) merge(k likeness, e postern.Event, last time.Time) {
	n := w.known[k]
	if n == nil {
		n = &entry{window: window}
		w.known[k] = n
	}
	count := n.waiting.Count
	if count == 0 || e.Time.Before(n.waiting.Time) {
		e.Count += count
		n.waiting = e
	} else {
		n.waiting.Count += e.Count
	}
	if last.After(n.last) {
		n.last = last
	}
}

// Close writes all waiting events and ends the Writer. If that fails, they are lost and
// the error is returned.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	w.once.Do(func() { close(w.stop) })
	<-w.done
	err := w.write(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.report(0) // they do not wait any more
	return err
}

// Unwritten returns how many events wait because the last write failed; 0 if it
// succeeded.
func (w *Writer) Unwritten() int64 {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting()
}

// waiting is Unwritten for a caller that holds the lock.
func (w *Writer) waiting() (n int64) {
	if !w.failed {
		return 0
	}
	for _, e := range w.known {
		n += e.waiting.Count
	}
	return n
}

// report adds n events to those that wait in all writers, in place of what was reported
// before. The caller holds the lock.
func (w *Writer) report(n int64) {
	unwritten.Add(n - w.reported)
	w.reported = n
}

// Flush writes what is due.
func (w *Writer) Flush() error { return w.write(false) }

func (w *Writer) run() {
	defer close(w.done)
	timer := time.NewTimer(maxWindow)
	defer timer.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-w.wake:
		case <-timer.C:
		}
		err := w.write(false)
		if err != nil && w.config.Failed != nil {
			w.config.Failed(err)
		}
		if err != nil {
			select { // events that come meanwhile wait, too
			case <-w.stop:
				return
			case <-time.After(retry):
			}
			timer.Reset(0)
			continue
		}
		timer.Reset(w.next())
	}
}

// next returns how long nothing is due.
func (w *Writer) next() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := maxWindow
	for _, n := range w.known {
		wait = min(wait, time.Until(n.until))
	}
	return max(wait, 0)
}

// write writes what is due, or all that waits.
func (w *Writer) write(all bool) error {
	w.turn.Lock()
	defer w.turn.Unlock()
	keys, due := w.take(time.Now(), all)
	if len(due) == 0 {
		return nil
	}
	events := make([]postern.Event, len(due))
	for i, n := range due {
		events[i] = n.event()
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := w.config.Append(ctx, events...)
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.report(w.waiting()) }()
	w.failed = err != nil
	for i, k := range keys {
		if err != nil {
			w.merge(k, due[i].waiting, due[i].last)
			continue
		}
		n := w.known[k]
		if due[i].waiting.Count > 1 {
			n.window = min(2*n.window, maxWindow)
		}
		n.until = time.Now().Add(n.window)
	}
	return err
}

// event returns what is written.
func (n entry) event() postern.Event {
	e := n.waiting
	if e.Count == 1 {
		e.Count = 0
		return e
	}
	e.Details = maps.Clone(e.Details)
	if e.Details == nil {
		e.Details = map[string]string{}
	}
	e.Details[LastSeen] = n.last.UTC().Format(time.RFC3339)
	return e
}

// take removes and returns what is due, in order. It deletes entries to which no event
// was added in a whole window.
func (w *Writer) take(now time.Time, all bool) (keys []likeness, due []entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, n := range w.known {
		switch {
		case !all && now.Before(n.until):
		case n.waiting.Count > 0:
			keys = append(keys, k)
		default:
			delete(w.known, k)
		}
	}
	slices.SortFunc(keys, func(a, b likeness) int {
		x, y := w.known[a].waiting, w.known[b].waiting
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.Object, y.Object), cmp.Compare(x.Reason, y.Reason))
	})
	for _, k := range keys {
		n := w.known[k]
		due = append(due, *n)
		n.waiting, n.last = postern.Event{}, time.Time{}
	}
	return keys, due
}
