package timeline

import (
	"context"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// CoalesceConfig bounds what a Coalescer keeps and for how long. The zero value
// works.
type CoalesceConfig struct {
	// Wait is how long a first event waits for others like it, 1 s if zero.
	Wait time.Duration
	// MaxWait is how far Wait grows while they keep coming, 5 min if zero: it
	// doubles with every line that counted more than one.
	MaxWait time.Duration
	// MaxKeys is how many different ones are told apart at a time, 1,000 if
	// zero. Beyond that only kind, outcome and reason count.
	MaxKeys int
	// Failed is told when lines cannot be appended; they are kept and tried
	// again. It may be nil.
	Failed func(error)
}

// Validate reports what is wrong with the configuration.
func (c CoalesceConfig) Validate() error {
	if c.Wait < 0 || c.MaxWait < 0 || c.MaxKeys < 0 {
		return postern.Errorf(postern.Invalid, "coalescing: no wait and no number is negative")
	}
	return nil
}

// Coalescer writes floods of events that are alike (in kind, outcome, person,
// address, object and reason) as one line that counts them. It is safe for
// concurrent use, and adding to it never waits for the database.
type Coalescer struct {
	config CoalesceConfig
	log    Appender
	stop   chan struct{}
	once   sync.Once
	done   chan struct{}
	wake   chan struct{}

	mu    sync.Mutex
	waits map[likeness]*pending
}

// likeness is what events of one line have in common.
type likeness struct {
	kind, host, person, address, object, reason string
	outcome                                     postern.Outcome
}

// pending is a line that is not written yet, or, with no count, one that was
// written a moment ago.
type pending struct {
	event postern.Event
	last  time.Time // of the last event in it
	due   time.Time
	wait  time.Duration
}

// Details of a line that counts several events.
const (
	LastSeen = "last"  // when the last of them was, RFC 3339
	Spread   = "among" // they are not all alike: addresses and objects are left out
)

// NewCoalescer returns a Coalescer that appends to log. It must be closed.
func NewCoalescer(c CoalesceConfig, log Appender) (*Coalescer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Wait == 0 {
		c.Wait = time.Second
	}
	if c.MaxWait == 0 {
		c.MaxWait = 5 * time.Minute
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 1000
	}
	co := &Coalescer{
		config: c, log: log,
		stop: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1),
		waits: map[likeness]*pending{},
	}
	go co.run()
	return co, nil
}

// Add counts an event. Links and details are those of the first of its line.
func (c *Coalescer) Add(e postern.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e = Clean(e)
	e.Count = max(e.Count, 1)
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	k := likenessOf(e)
	p := c.waits[k]
	if p == nil && len(c.waits) >= c.config.MaxKeys {
		e.Address, e.Object, e.Person, e.Host, e.Links, e.Details = "", "", "", "", nil, map[string]string{Spread: "many"}
		k = likenessOf(e)
		p = c.waits[k]
	}
	if p == nil {
		p = &pending{wait: c.config.Wait}
		c.waits[k] = p
	}
	if p.event.Count > 0 {
		p.event.Count += e.Count
	} else {
		p.event, p.due = e, now.Add(p.wait)
	}
	p.last = e.Time
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func likenessOf(e postern.Event) likeness {
	return likeness{e.Kind, e.Host, e.Person, e.Address, e.Object, e.Reason, e.Outcome}
}

// Close writes what is pending and stops. It returns the error of writing; what
// could not be written is lost then.
func (c *Coalescer) Close(ctx context.Context) error {
	c.once.Do(func() { close(c.stop) })
	<-c.done
	return c.flush(ctx, time.Time{})
}

func (c *Coalescer) run() {
	defer close(c.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-c.wake:
		case <-timer.C:
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if err := c.flush(ctx, time.Now()); err != nil && c.config.Failed != nil {
				c.config.Failed(err)
			}
			cancel()
		}
		if next, ok := c.next(); ok {
			timer.Reset(time.Until(next))
		}
	}
}

// next returns when the next line is due.
func (c *Coalescer) next() (next time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.waits {
		if !ok || p.due.Before(next) {
			next, ok = p.due, true
		}
	}
	return next, ok
}

// flush appends the lines that are due, or all if now is zero. Lines that could
// not be appended stay, and count on.
func (c *Coalescer) flush(ctx context.Context, now time.Time) error {
	due := c.take(now)
	if len(due) == 0 {
		return nil
	}
	events := make([]postern.Event, len(due))
	for i, p := range due {
		events[i] = p.event
		if p.event.Count == 1 {
			events[i].Count = 0
			continue
		}
		events[i].Details = map[string]string{LastSeen: p.last.UTC().Format(time.RFC3339)}
		for k, v := range p.event.Details {
			events[i].Details[k] = v
		}
	}
	err := c.log.Append(ctx, events...)
	if err != nil {
		c.putBack(due)
	}
	return err
}

// take removes the lines that are due. A likeness stays for the wait that
// follows its line, so that a flood that goes on is told in longer and longer
// steps; then it is forgotten.
func (c *Coalescer) take(now time.Time) []pending {
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []pending
	for k, p := range c.waits {
		switch {
		case !now.IsZero() && now.Before(p.due):
		case p.event.Count == 0:
			delete(c.waits, k)
		default:
			due = append(due, *p)
			if p.event.Count > 1 {
				p.wait = min(2*p.wait, c.config.MaxWait)
			}
			p.event, p.due = postern.Event{}, now.Add(p.wait)
		}
	}
	return due
}

// putBack merges lines that could not be written with what came since.
func (c *Coalescer) putBack(due []pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, old := range due {
		k := likenessOf(old.event)
		p := c.waits[k]
		if p == nil {
			p = &pending{wait: old.wait, last: old.last}
			c.waits[k] = p
		}
		if p.event.Count > 0 {
			old.event.Count += p.event.Count
			old.last = p.last
		}
		p.event, p.last, p.due = old.event, old.last, time.Now().Add(p.wait)
	}
}
