package console

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
)

// Feed tells pages that are open what is written to the timeline. The timeline's new
// entries are read once for all pages, and while there are any.
type Feed struct {
	*Console
	MaxPages     int // at once; 0: 256
	MaxPerPerson int // 0: 8

	size atomic.Int64 // of the timeline, as far as tail has it

	mu    sync.Mutex
	pages map[string]int // by person
	open  int
	tail  []*fresh // the last entries, in order and without gaps
	wake  chan struct{}
}

// fresh is an entry that was just written, with its line once a page has asked for it.
type fresh struct {
	postern.Event
	line atomic.Pointer[Line]
}

// shown returns the entry's line, which is made once for all pages.
func (e *fresh) shown(ctx context.Context, src evidence) (*Line, error) {
	if l := e.line.Load(); l != nil {
		return l, nil
	}
	l, err := src.line(ctx, e.Event)
	if err == nil {
		e.line.Store(&l)
	}
	return &l, err
}

// The times and bounds of a feed.
const (
	feedEvery = 250 * time.Millisecond
	maxTail   = 4096
	// Of what is written between two looks, a page is sent so many lines, and how many
	// others there are.
	maxBatch = 20
	// A page that slept for longer than the tail counts up to so many others.
	maxMissed = 500
)

// NewFeed returns a feed without pages.
func NewFeed(c *Console) *Feed {
	return &Feed{
		Console: c, MaxPages: 256, MaxPerPerson: 8, pages: map[string]int{}, wake: make(chan struct{}, 1),
	}
}

// Open counts a page of a person. It fails with TooMany if there are too many. The page calls
// leave when it ends.
func (f *Feed) Open(person string) (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open >= f.MaxPages || f.pages[person] >= f.MaxPerPerson {
		return nil, postern.Errorf(postern.TooMany, "too many pages show the timeline as it is written").
			WithHint("Close some of them, or reload this page to see what is new.")
	}
	f.open++
	f.pages[person]++
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return sync.OnceFunc(func() { f.leave(person) }), nil
}

func (f *Feed) leave(person string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open--
	if f.pages[person]--; f.pages[person] == 0 {
		delete(f.pages, person)
	}
	if f.open == 0 {
		f.tail = nil
		f.size.Store(0)
	}
}

// Run reads what is written, until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-tick.C:
		}
		f.read(ctx)
	}
}

// read adds new entries to the tail. If that fails, the next call does it.
func (f *Feed) read(ctx context.Context) {
	f.mu.Lock()
	open := f.open
	f.mu.Unlock()
	known := f.size.Load()
	if open == 0 {
		return
	}
	size, err := f.Log.LogSize(ctx)
	if err != nil || size <= known {
		return
	}
	query := Query{}.filter()
	query.From, query.Before = max(known, size-maxTail), size
	if known == 0 { // the first look: pages ask the timeline itself for what was before
		query.From = size
	}
	var events []postern.Event
	if query.From < size {
		if events, err = f.Log.Events(ctx, query); err != nil {
			return
		}
	}
	f.add(events, size)
}

func (f *Feed) add(events []postern.Event, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == 0 {
		return
	}
	if n := len(f.tail); n > 0 && len(events) > 0 && f.tail[n-1].Index+1 != events[0].Index {
		f.tail = nil
	}
	for _, e := range events {
		f.tail = append(f.tail, &fresh{Event: e})
	}
	if over := len(f.tail) - maxTail; over > 0 {
		f.tail = append([]*fresh(nil), f.tail[over:]...)
	}
	f.size.Store(size)
}

// Batch is what was written since a page was told last.
type Batch struct {
	Lines []Line // newest first
	// Folded is how many others there are, older than Lines and with indices in From..Before,
	// whatever their strength; More says that there were older ones that were not looked at.
	Folded       int64
	More         bool
	From, Before int64
	Next         int64 // index of the first entry that was not looked at
}

// Since returns what a query selects of what was written from an index on, as far as the
// feed has read it.
func (f *Feed) Since(ctx context.Context, q Query, next int64) (Batch, error) {
	size := f.size.Load()
	b := Batch{Next: next}
	if size <= next {
		return b, nil
	}
	q.From, q.Before = next, size
	b = Batch{From: next, Before: size, Next: size}
	if tail, ok := f.from(next); ok {
		return b, f.fromTail(ctx, q, tail, &b)
	}
	return b, f.missed(ctx, q, &b)
}

// from returns the tail from an index on, if it goes back so far.
func (f *Feed) from(next int64) ([]*fresh, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.tail) == 0 || f.tail[0].Index > next {
		return nil, false
	}
	return f.tail[min(next-f.tail[0].Index, int64(len(f.tail))):], true
}

func (f *Feed) fromTail(ctx context.Context, q Query, tail []*fresh, b *Batch) error {
	src, filter := newEvidence(f.Log), q.filter()
	for i := len(tail) - 1; i >= 0; i-- {
		e := tail[i]
		if !filter.Match(e.Event) || !q.hasWords(e.Event) {
			continue
		}
		if len(b.Lines) == maxBatch {
			b.Folded++
			continue
		}
		l, err := e.shown(ctx, src)
		if err != nil {
			return err
		}
		if q.Strength == "" || l.Strength == q.Strength {
			b.Lines = append(b.Lines, *l)
		}
	}
	b.fold()
	return nil
}

// missed reads what a page has missed that was away for long.
func (f *Feed) missed(ctx context.Context, q Query, b *Batch) error {
	filter := q.filter()
	filter.Last, filter.Limit = true, maxMissed+1
	events, err := f.Log.Events(ctx, filter)
	if err != nil {
		return err
	}
	b.More = len(events) > maxMissed
	events = slices.DeleteFunc(events, func(e postern.Event) bool { return !q.hasWords(e) })
	first := max(0, len(events)-maxBatch)
	b.Lines, err = f.lines(ctx, q, events[first:])
	b.Folded = int64(first)
	b.fold()
	return err
}

// fold limits what is folded to what is older than the lines.
func (b *Batch) fold() {
	if n := len(b.Lines); n > 0 && (b.Folded > 0 || b.More) {
		b.Before = b.Lines[n-1].Index
	}
}
