package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Flight is a flight recorder: it keeps the newest events in memory, and writes those
// around each call that a condition is true of to a file of its own.
type Flight struct {
	// Name is that of the files, to which each adds the time of its call, before the
	// extension.
	Name  string
	Ring  int64 // bytes of memory for events; while a file is written, up to twice that
	Limit int64 // bytes of all files; 0 means no limit
	// Before and After are how much is written from before and after the call; 0 means a
	// minute.
	Before, After time.Duration
	Keep          *Condition
	// Kept is told of each file once it is written; of a call that goes on, and of further
	// ones within After, one file tells.
	Kept func(file, reason string)

	now func() uint64 // CLOCK_MONOTONIC nanoseconds; for tests
}

// minRing is the least memory that is of use: some ten thousand messages.
const minRing = 4 << 20

// Validate returns an Invalid error for what cannot be kept.
func (f Flight) Validate() error {
	switch {
	case f.Keep == nil:
		return postern.Errorf(postern.Invalid, "nothing says which calls to keep events of")
	case f.Ring < minRing:
		return postern.Errorf(postern.Invalid, "a ring of %d bytes is too small", f.Ring).WithHint("4MiB is the least")
	}
	if _, err := os.Stat(filepath.Dir(f.Name)); err != nil {
		return postern.Errorf(postern.NotFound, "%w", err)
	}
	return nil
}

// Trace runs a trace with c until ctx ends or the files have reached the limit, and returns
// what was seen and lost. ready is called once events are seen.
func (f Flight) Trace(ctx context.Context, c capture.Config, ready func(*capture.Session)) (sum event.Summary,
	full bool, failed error,
) {
	err := f.Validate()
	if err != nil {
		return sum, false, err
	}
	r := newFlightRecorder(f)
	c.Record, c.Queue = r, true
	sum, err = capture.Trace(ctx, c, nil, func(s *capture.Session) error { ready(s); return nil })
	for _, e := range []error{err, r.finish()} {
		if errors.Is(e, ErrFull) {
			full = true
		} else {
			failed = errors.Join(failed, e)
		}
	}
	return sum, full, failed
}

// flightRecorder is a sink of all events of a session.
type flightRecorder struct {
	Flight
	ring     ring
	pipeline *correlate.Pipeline
	running  map[*event.Call]*runningCall
	looked   uint64    // when the running calls were last looked at
	incident *incident // is being written; nil for none
	left     int64     // bytes that may still be written; negative for no limit
}

// runningCall is a call without an answer.
type runningCall struct {
	event event.Event // the call, without its bytes
	kept  bool        // the condition was true of it
}

// looking is how often running calls are looked at, and how old they are then.
const looking = time.Second

func newFlightRecorder(f Flight) *flightRecorder {
	f.Before, f.After = orMinute(f.Before), orMinute(f.After)
	if f.now == nil {
		f.now = system.Monotonic
	}
	r := &flightRecorder{
		Flight: f, ring: ring{limit: f.Ring, age: f.Before + perSegment}, left: f.Limit,
		pipeline: correlate.New(correlate.Filter{}, false), running: map[*event.Call]*runningCall{},
	}
	if f.Limit == 0 {
		r.left = -1
	}
	return r
}

func orMinute(d time.Duration) time.Duration {
	if d == 0 {
		return time.Minute
	}
	return d
}

// Event keeps an event in memory, and looks whether the condition is true of the call that
// it completes.
func (r *flightRecorder) Event(e *event.Event) error {
	whole, err := r.ring.event(e)
	if err != nil {
		return err
	}
	if err := r.hand(whole); err != nil {
		return err
	}
	joined := *e // the session joins it, too
	return r.pipeline.Event(&joined, judge{r})
}

// judge is the sink of joined events.
type judge struct{ r *flightRecorder }

// Idle implements a sink.
func (judge) Idle() error { return nil }

// Event looks at what happens to a call.
func (j judge) Event(e *event.Event) error {
	r := j.r
	switch {
	case e.Call == nil:
		return nil
	case e.Kind.RPC() && libvirt.Type(e.Type).IsCall():
		k := *e
		k.Args, k.Strings, k.Frames, k.Regs, k.Stack, k.Payload = nil, nil, nil, nil, nil, nil
		event.Bound(r.running)
		known := r.running[e.Call] // the client's side of it
		r.running[e.Call] = &runningCall{event: k, kept: known != nil && known.kept}
		return nil
	case e.Completes() || e.Kind == event.CallUnanswered:
		known := r.running[e.Call]
		delete(r.running, e.Call)
		if known != nil && known.kept {
			return nil
		}
		_, err := r.consider(e, e.Took, false)
		return err
	case e.Kind == event.ClientRx:
		delete(r.running, e.Call)
	}
	return nil
}

// Idle looks now and then at the calls that run, and ends a file whose time is over.
func (r *flightRecorder) Idle() error {
	now := r.now()
	if i := r.incident; i != nil && now >= i.until {
		if err := r.end(); err != nil {
			return err
		}
	}
	if now < r.looked+uint64(looking) {
		return nil
	}
	r.looked = now
	for c, k := range r.running {
		age := time.Duration(now - min(c.Begin, now))
		if k.kept || c.End != 0 || age < looking {
			continue
		}
		e := k.event
		e.Mono, e.Wall = now, e.Wall.Add(time.Duration(now-min(e.Mono, now)))
		var err error
		if k.kept, err = r.consider(&e, age, true); err != nil {
			return err
		}
	}
	return nil
}

// consider begins or prolongs a file if the condition is true of a call.
func (r *flightRecorder) consider(e *event.Event, took time.Duration, open bool) (bool, error) {
	c := newFacts(e, took, open)
	keep, err := r.Keep.holds(c)
	if err != nil || !keep {
		return false, err
	}
	until := e.Mono + uint64(r.After)
	if r.incident != nil {
		r.incident.until = until
		return true, nil
	}
	return true, r.begin(e, c.String(), until)
}

// begin begins a file with what is in memory.
func (r *flightRecorder) begin(e *event.Event, reason string, until uint64) error {
	if _, err := r.ring.close(); err != nil {
		return err
	}
	name := r.fileName(e.Wall)
	f, err := durable.CreatePrivate(name)
	if err != nil {
		return err
	}
	r.incident = newIncident(f, name, reason, until)
	oldest := e.Mono - min(uint64(r.Before), e.Mono)
	for _, s := range r.ring.segments {
		if s.last < oldest {
			continue
		}
		if err := r.hand(s); err != nil {
			return err
		}
	}
	return nil
}

// fileName names the file of a moment: NAME-20261130T143000.123Z.EXTENSION.
func (f Flight) fileName(t time.Time) string {
	extension := filepath.Ext(f.Name)
	return strings.TrimSuffix(f.Name, extension) + "-" + t.UTC().Format("20060102T150405.000Z") + extension
}

// hand gives a segment to the file that is being written, if there is one.
func (r *flightRecorder) hand(s *segment) error {
	if s == nil || r.incident == nil {
		return nil
	}
	if n := int64(len(s.events())); r.left >= 0 {
		if r.left -= n; r.left < 0 {
			return ErrFull
		}
	}
	r.incident.add(s.events())
	return nil
}

// end ends the file that is being written.
func (r *flightRecorder) end() error {
	s, err := r.ring.close()
	if err == nil {
		err = r.hand(s)
	}
	i := r.incident
	r.incident = nil
	if werr := i.close(); werr != nil {
		return werr
	}
	if r.Kept != nil {
		r.Kept(i.name, i.reason)
	}
	return err
}

// finish ends what is being written.
func (r *flightRecorder) finish() error {
	if r.incident == nil {
		return nil
	}
	return r.end()
}

// incident is a file around a call. It is written by a goroutine of its own: events must
// not wait for a disk.
type incident struct {
	name, reason string
	until        uint64
	mu           sync.Mutex
	queue        [][]byte
	wake         chan struct{}
	done         chan error
}

func newIncident(f *os.File, name, reason string, until uint64) *incident {
	i := &incident{name: name, reason: reason, until: until, wake: make(chan struct{}, 1), done: make(chan error, 1)}
	i.queue = [][]byte{[]byte(recordingMagic)}
	go func() { i.done <- errors.Join(i.write(f), f.Close()) }()
	return i
}

func (i *incident) add(b []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.queue = append(i.queue, b)
	select {
	case i.wake <- struct{}{}:
	default:
	}
}

// write writes what is added until the wake channel is closed.
func (i *incident) write(f *os.File) error {
	for open := true; open; {
		_, open = <-i.wake
		i.mu.Lock()
		queue := i.queue
		i.queue = nil
		i.mu.Unlock()
		for _, b := range queue {
			if _, err := f.Write(b); err != nil {
				return fmt.Errorf("write %s: %w", i.name, err)
			}
		}
	}
	return nil
}

// close waits until all is written.
func (i *incident) close() error {
	close(i.wake)
	return <-i.done
}
