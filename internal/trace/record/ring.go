package record

import (
	"bytes"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
)

// ring keeps the newest events of a trace in memory, encoded. It is a list of segments,
// each of which can be read without those before it.
type ring struct {
	limit    int64         // bytes of all segments
	age      time.Duration // that segments are kept for
	segments []*segment    // whole ones, the oldest first
	open     *segment      // is being written; nil for none
	size     int64         // of the whole ones
}

// segment is a part of a recording.
type segment struct {
	buf      bytes.Buffer
	recorder *Recorder
	first    uint64 // CLOCK_MONOTONIC nanoseconds of its first and last event
	last     uint64
	written  int64 // bytes of its events
}

const (
	// perRing is how many segments a full ring has: what is dropped at once is a part
	// of it.
	perRing = 16
	// perSegment is for how long events go to one segment.
	perSegment = 5 * time.Second
)

// event adds an event. It returns the segment that has become whole by it, or nil.
func (r *ring) event(e *event.Event) (whole *segment, err error) {
	if s := r.open; s != nil && (s.written >= r.limit/perRing || e.Mono-s.first >= uint64(perSegment)) {
		if whole, err = r.close(); err != nil {
			return nil, err
		}
	}
	if r.open == nil {
		s := &segment{first: e.Mono}
		if s.recorder, err = NewRecorder(&s.buf, 0); err != nil {
			return nil, err
		}
		r.open = s
	}
	r.open.last = max(r.open.last, e.Mono)
	if err = r.open.recorder.Event(e); err == nil {
		r.open.written += int64(len(r.open.recorder.buf))
	}
	return whole, err
}

// close makes a whole segment of what is being written, and drops what is too old or too
// much. It returns nil if nothing was written.
func (r *ring) close() (*segment, error) {
	s := r.open
	if s == nil {
		return nil, nil
	}
	r.open = nil
	if err := s.recorder.Idle(); err != nil {
		return nil, err
	}
	s.recorder = nil
	r.segments = append(r.segments, s)
	r.size += int64(s.buf.Cap())
	for len(r.segments) > 1 && (r.size > r.limit || s.last-min(r.segments[0].last, s.last) > uint64(r.age)) {
		r.size -= int64(r.segments[0].buf.Cap())
		r.segments = r.segments[1:]
	}
	return s, nil
}

// events returns the bytes of the segment's events, without the head of a recording.
func (s *segment) events() []byte { return s.buf.Bytes()[len(recordingMagic):] }
