package record

import (
	"cmp"
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
	Limit int64 // bytes of all files, of which the oldest are removed; 0 means no limit
	// Before and After are how much is written from before and after the call; 0 means a
	// minute.
	Before, After time.Duration
	Keep          *Condition
	// Kept is told of each file once it is written; of a call that goes on, and of further
	// ones within After, one file tells, up to five minutes after the first.
	Kept func(file, reason string)
	// Failed is told of a file that could not be written whole, or not be removed, and, with
	// Name, that the condition cannot be decided about a call. Events are
	// kept in memory on, and the next file is tried no sooner than After. If it is nil, a file
	// that cannot be written ends the trace.
	Failed func(file string, err error)
	// Removed is told of each file that was removed since all had reached Limit. Only files
	// of this trace are.
	Removed func(file string)

	now func() uint64 // CLOCK_MONOTONIC nanoseconds; for tests
}

// NewFlight returns a recorder that keeps files of that name around calls of which the
// condition is true, from a ring of so many bytes (0 means 256 MiB), as far as they are
// limit bytes together (0 means any); nil without a name.
func NewFlight[Size ~int64](name, condition string, ring, limit Size) (*Flight, error) {
	if name == "" {
		return nil, nil
	}
	keep, err := NewCondition(condition)
	const usual = 256 << 20
	return &Flight{Name: name, Ring: int64(cmp.Or(ring, usual)), Limit: int64(limit), Keep: keep}, err
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

// Trace runs a trace with c until ctx ends, and returns what was seen and lost. It is never
// full. ready is called once events are seen.
func (f Flight) Trace(ctx context.Context, c capture.Config, ready func(*capture.Session)) (sum event.Summary,
	full bool, err error,
) {
	r, err := f.Open()
	if err != nil {
		return sum, false, err
	}
	c.Record, c.Queue = r, true
	sum, err = capture.Trace(ctx, c, nil, func(s *capture.Session) error { ready(s); return nil })
	return sum, false, errors.Join(err, r.Close())
}

// Open returns a recorder for a session that shows its events elsewhere, too: its
// [capture.Config.Record], of which Idle must be called whenever that of the session's sink is.
func (f Flight) Open() (*FlightRecorder, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	return newFlightRecorder(f), nil
}

// FlightRecorder is a sink of all events of a session. Not safe for concurrent use.
type FlightRecorder struct {
	Flight
	ring     ring
	pipeline *correlate.Pipeline
	running  map[*event.Call]*runningCall
	looked   uint64      // when the running calls were last looked at
	incident *incident   // is being written; nil for none
	files    []*incident // were written and count for the limit, the oldest first
	retry    uint64      // no file begins before
	told     uint64      // not told again before that the condition cannot be decided
}

// runningCall is a call without an answer.
type runningCall struct {
	event event.Event // the call, without its bytes
	kept  bool        // the condition was true of it
}

const (
	// looking is how often running calls are looked at, and how old they are then.
	looking = time.Second
	// longest is for how long further calls prolong a file.
	longest = 5 * time.Minute
)

func newFlightRecorder(f Flight) *FlightRecorder {
	f.Before, f.After = orMinute(f.Before), orMinute(f.After)
	if f.now == nil {
		f.now = system.Monotonic
	}
	return &FlightRecorder{
		Flight: f, ring: ring{limit: f.Ring, age: f.Before + perSegment},
		pipeline: correlate.New(correlate.Filter{}, false), running: map[*event.Call]*runningCall{},
	}
}

func orMinute(d time.Duration) time.Duration {
	if d == 0 {
		return time.Minute
	}
	return d
}

// Event keeps an event in memory, and looks whether the condition is true of the call that
// it completes.
func (r *FlightRecorder) Event(e *event.Event) error {
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
type judge struct{ r *FlightRecorder }

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
func (r *FlightRecorder) Idle() error {
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
func (r *FlightRecorder) consider(e *event.Event, took time.Duration, open bool) (bool, error) {
	c := newFacts(e, took, open)
	keep, err := r.Keep.holds(c)
	if err != nil {
		return false, r.undecided(e.Mono, err)
	}
	if !keep {
		return false, nil
	}
	until := e.Mono + uint64(r.After)
	if i := r.incident; i != nil {
		i.until = min(until, i.latest)
		return true, nil
	}
	if e.Mono < r.retry {
		return false, nil
	}
	return r.begin(e, c.String(), until)
}

// begin begins a file with what is in memory, and reports whether there is one.
func (r *FlightRecorder) begin(e *event.Event, reason string, until uint64) (bool, error) {
	if _, err := r.ring.close(); err != nil {
		return false, err
	}
	name := r.fileName(e.Wall)
	f, err := durable.CreatePrivate(name)
	if err != nil {
		return false, r.fail(name, err)
	}
	r.incident = newIncident(f, name, reason)
	r.incident.until, r.incident.latest = until, max(until, e.Mono+uint64(longest))
	oldest := e.Mono - min(uint64(r.Before), e.Mono)
	for _, s := range r.ring.segments {
		if s.last < oldest {
			continue
		}
		if err := r.hand(s); err != nil {
			return true, err
		}
	}
	return true, nil
}

// fileName names the file of a moment: NAME-20261130T143000.123Z.EXTENSION.
func (f Flight) fileName(t time.Time) string {
	extension := filepath.Ext(f.Name)
	return strings.TrimSuffix(f.Name, extension) + "-" + t.UTC().Format("20060102T150405.000Z") + extension
}

// hand gives a segment to the file that is being written, if there is one. It ends the file
// if that cannot be written, or alone reaches the limit.
func (r *FlightRecorder) hand(s *segment) error {
	i := r.incident
	if s == nil || i == nil {
		return nil
	}
	if !r.room(int64(len(s.events()))) {
		r.retry = i.until
		return r.conclude()
	}
	if !i.add(s.events()) {
		return r.conclude()
	}
	return nil
}

// room reports whether so many bytes more fit into the limit. It removes the oldest files
// for them.
func (r *FlightRecorder) room(n int64) bool {
	n += r.incident.size
	if r.Limit == 0 || n > r.Limit {
		return r.Limit == 0
	}
	for _, f := range r.files {
		n += f.size
	}
	for ; n > r.Limit; r.files = r.files[1:] {
		n -= r.files[0].size
		r.remove(r.files[0].name)
	}
	return true
}

// remove removes a file, which may be gone.
func (r *FlightRecorder) remove(name string) {
	switch err := os.Remove(name); {
	case err == nil && r.Removed != nil:
		r.Removed(name)
	case err != nil && !errors.Is(err, os.ErrNotExist) && r.Failed != nil:
		r.Failed(name, err)
	}
}

// end ends the file that is being written.
func (r *FlightRecorder) end() error {
	s, err := r.ring.close()
	if err == nil {
		err = r.hand(s)
	}
	if r.incident == nil {
		return err
	}
	return errors.Join(err, r.conclude())
}

// conclude waits until the file is written, and says whether it is.
func (r *FlightRecorder) conclude() error {
	i := r.incident
	r.incident = nil
	err := i.close()
	if r.Limit > 0 {
		r.files = append(r.files, i)
	}
	if err == nil {
		if r.Kept != nil {
			r.Kept(i.name, i.reason)
		}
		return nil
	}
	i.measure()
	return r.fail(i.name, err)
}

// undecided says at most once in After that the condition cannot be decided about a call, as
// of what a client has called a machine, or returns the error where nothing is told of it.
func (r *FlightRecorder) undecided(now uint64, err error) error {
	if r.Failed == nil {
		return err
	}
	if now >= r.told {
		r.told = now + uint64(r.After)
		r.Failed(r.Name, err)
	}
	return nil
}

// fail says of a file that it could not be written, or returns the error where nothing is
// told of it.
func (r *FlightRecorder) fail(name string, err error) error {
	r.retry = r.now() + uint64(r.After)
	if r.Failed == nil {
		return err
	}
	r.Failed(name, err)
	return nil
}

// Close ends what is being written.
func (r *FlightRecorder) Close() error {
	if r.incident == nil {
		return nil
	}
	return r.end()
}

// incident is a file around a call. It is written by a goroutine of its own: events must
// not wait for a disk.
type incident struct {
	name, reason string
	until        uint64 // when it ends, which further calls put off
	latest       uint64 // when it ends whatever is called
	size         int64  // bytes that were added
	mu           sync.Mutex
	queue        [][]byte
	failed       bool // it cannot be written
	wake         chan struct{}
	done         chan error
}

func newIncident(f *os.File, name, reason string) *incident {
	i := &incident{name: name, reason: reason, wake: make(chan struct{}, 1), done: make(chan error, 1)}
	i.queue = [][]byte{[]byte(recordingMagic)}
	go func() { i.done <- errors.Join(i.write(f), f.Close()) }()
	return i
}

// add queues bytes to be written. It reports whether the file can be written.
func (i *incident) add(b []byte) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.failed {
		return false
	}
	i.queue = append(i.queue, b)
	i.size += int64(len(b))
	select {
	case i.wake <- struct{}{}:
	default:
	}
	return true
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
				i.fail()
				return fmt.Errorf("write %s: %w", i.name, err)
			}
		}
	}
	return nil
}

// fail drops what was not written.
func (i *incident) fail() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.queue, i.failed = nil, true
}

// measure sets the size of a file that failed to what was written. It removes one without
// events.
func (i *incident) measure() {
	i.size = 0
	if fi, err := os.Stat(i.name); err == nil {
		i.size = fi.Size()
	}
	if i.size <= int64(len(recordingMagic)) {
		_ = os.Remove(i.name) // nothing is lost with it
	}
}

// close waits until all is written.
func (i *incident) close() error {
	close(i.wake)
	return <-i.done
}
