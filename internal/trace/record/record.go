// Package record writes what a trace saw into a file, and replays it: through any filter
// and in any format, on any system. A recording has what was captured, secrets included.
package record

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
)

// A recording is a magic line and records, each a 32-bit little-endian length
// and so many bytes: the fields of one event, in the order of [codec.event],
// numbers as varints, texts and bytes with their length before them. A client's
// identity, and a frame of a stack, is written once and referred to by number.
// Recordings hold payloads as they were, secrets included: they are files of mode
// 0600.
const (
	recordingMagic = "postern trace 3\n"
	maxRecord      = 1 << 20 // an event's strings and payload are at most 64 KiB each
	maxPeers       = 4096
	maxFrames      = 1 << 14
	maxName        = 4096 // bytes of a symbol or a module's path
	maxItems       = 64
	maxDepth       = 1024 // of a stack
)

// ErrFull is returned when a recording has reached its limit.
var ErrFull = errors.New("the recording is full")

// Recorder writes a recording.
type Recorder struct {
	w     *bufio.Writer
	left  int64 // bytes that may still be written; negative for no limit
	peers map[*event.Peer]uint64
	known map[event.Frame]uint64
	buf   []byte
}

// NewRecorder begins a recording in w of at most limit bytes; 0 means no limit.
func NewRecorder(w io.Writer, limit int64) (*Recorder, error) {
	r := &Recorder{
		w: bufio.NewWriterSize(w, 256<<10), left: limit - int64(len(recordingMagic)),
		peers: map[*event.Peer]uint64{}, known: map[event.Frame]uint64{},
	}
	if limit == 0 {
		r.left = -1
	}
	_, err := r.w.WriteString(recordingMagic)
	return r, err
}

// Event appends one event, or returns ErrFull.
func (r *Recorder) Event(e *event.Event) error {
	c := codec{b: append(r.buf[:0], 0, 0, 0, 0), writing: true}
	id, known := r.peers[e.Peer]
	if !known && e.Peer != nil {
		if len(r.peers) >= maxPeers {
			clear(r.peers)
		}
		id = uint64(len(r.peers))
		r.peers[e.Peer] = id
	}
	c.peer(e.Peer, id, !known)
	c.event(e)
	c.writeFrames(e.Frames, r.known)
	r.buf = c.b
	if r.left >= 0 {
		if int64(len(c.b)) > r.left {
			return ErrFull
		}
		r.left -= int64(len(c.b))
	}
	binary.LittleEndian.PutUint32(c.b, uint32(len(c.b)-4))
	_, err := r.w.Write(c.b)
	return err
}

// Idle writes out what is buffered.
func (r *Recorder) Idle() error { return r.w.Flush() }

// Replay reads a recording and passes its events through the same joins and
// filter as a live session's, in the order in which they were seen.
func Replay(rd io.Reader, f correlate.Filter, tree bool, sink event.Sink) (event.Summary, error) {
	if err := f.Validate(); err != nil {
		return event.Summary{}, postern.Errorf(postern.Invalid, "%w", err)
	}
	p := correlate.New(f, tree)
	var seen uint64
	var mono uint64
	losses := map[event.Loss]uint64{}
	err := readRecording(rd, func(e *event.Event) error {
		mono = e.Mono
		if e.Kind == event.Lost {
			losses[event.Loss{PID: e.PID, Comm: e.Comm, Probe: e.Probe}] += e.Arg(0)
		} else if e.Kind < event.Gone {
			seen++
		}
		return p.Event(e, sink)
	})
	sum := event.NewSummary(seen, losses)
	if err != nil {
		return sum, err
	}
	sum.Open, sum.Oldest = p.Open(mono)
	if err := p.End(mono, sink); err != nil {
		return sum, err
	}
	return sum, sink.Idle()
}

// readRecording calls do for each event, which stands until do returns.
func readRecording(rd io.Reader, do func(*event.Event) error) error {
	br := bufio.NewReaderSize(rd, 256<<10)
	magic := make([]byte, len(recordingMagic))
	if _, err := io.ReadFull(br, magic); err != nil ||
		string(magic[:len("postern trace ")]) != recordingMagic[:len("postern trace ")] {
		return postern.Errorf(postern.Invalid, "this is no recording of postern trace")
	}
	if string(magic) != recordingMagic {
		return postern.Errorf(postern.Invalid, "this recording was made by another version of postern")
	}
	var peers []*event.Peer
	var frames []event.Frame
	var size [4]byte
	var buf []byte
	for n := 1; ; n++ {
		if _, err := io.ReadFull(br, size[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return postern.Errorf(postern.Invalid, "the recording ends in the middle of event %d", n)
		}
		length := binary.LittleEndian.Uint32(size[:])
		if length > maxRecord {
			return postern.Errorf(postern.Invalid, "event %d of the recording has %d bytes", n, length)
		}
		if cap(buf) < int(length) {
			buf = make([]byte, length)
		}
		buf = buf[:length]
		if _, err := io.ReadFull(br, buf); err != nil {
			return postern.Errorf(postern.Invalid, "the recording ends in the middle of event %d", n)
		}
		var e event.Event
		c := codec{b: buf}
		peers = c.readPeer(&e, peers)
		c.event(&e)
		frames = c.readFrames(&e, frames)
		if c.err != nil || len(c.b) != 0 {
			return postern.Errorf(postern.Invalid, "event %d of the recording is damaged", n)
		}
		if err := do(&e); err != nil {
			return err
		}
	}
}

// codec writes or reads fields, one list for both.
type codec struct {
	b       []byte // written so far, or left to read
	writing bool
	err     error
}

var errDamaged = errors.New("damaged")

func (c *codec) uint(v *uint64) {
	if c.writing {
		c.b = binary.AppendUvarint(c.b, *v)
		return
	}
	n, size := binary.Uvarint(c.b)
	if size <= 0 {
		c.err, c.b = errDamaged, nil
		return
	}
	*v, c.b = n, c.b[size:]
}

// number is uint for other integers; a value that does not fit is damage.
func number[T ~int | ~int8 | ~int32 | ~int64 | ~uint8 | ~uint32](c *codec, v *T) {
	u := uint64(int64(*v))<<1 ^ uint64(int64(*v)>>63) // zigzag: -1 is 1
	c.uint(&u)
	if c.writing {
		return
	}
	s := int64(u>>1) ^ -int64(u&1)
	if *v = T(s); int64(*v) != s {
		c.err = errDamaged
	}
}

func (c *codec) bool(v *bool) {
	n := 0
	if *v {
		n = 1
	}
	number(c, &n)
	*v = n != 0
}

func (c *codec) bytes(v *[]byte) {
	n := uint64(len(*v))
	c.uint(&n)
	if c.writing {
		c.b = append(c.b, *v...)
		return
	}
	if n > uint64(len(c.b)) {
		c.err, c.b = errDamaged, nil
		return
	}
	if n > 0 {
		*v = c.b[:n:n]
	}
	c.b = c.b[n:]
}

func (c *codec) text(v *string) {
	b := []byte(*v)
	c.bytes(&b)
	if !c.writing {
		*v = string(b)
	}
}

// count is the length of a list, bounded.
func (c *codec) count(n int) int {
	number(c, &n)
	if n < 0 || n > maxItems {
		c.err = errDamaged
		return 0
	}
	return n
}

func (c *codec) event(e *event.Event) {
	number(c, &e.Kind)
	c.text(&e.Probe)
	c.uint(&e.Mono)
	wall := e.Wall.UnixNano()
	number(c, &wall)
	if !c.writing {
		e.Wall = time.Unix(0, wall)
	}
	for _, v := range []*int{&e.PID, &e.TID, &e.CPU, &e.UID} {
		number(c, v)
	}
	c.text(&e.Comm)
	n := c.count(len(e.Args))
	if !c.writing {
		e.Args = make([]uint64, n)
	}
	for i := range n {
		c.uint(&e.Args[i])
	}
	n = c.count(len(e.Strings))
	if !c.writing {
		e.Strings = make([]string, n)
	}
	for i := range n {
		c.text(&e.Strings[i])
	}
	c.bool(&e.Cut)
	c.uint(&e.Client)
	number(c, &e.Len)
	for _, v := range []*uint32{&e.Prog, &e.Vers, &e.Type, &e.Status, &e.Serial} {
		number(c, v)
	}
	number(c, &e.Proc)
	c.bytes(&e.Payload)
	number(c, &e.PayloadLen)
	c.bool(&e.NoPayload)
	c.uint(&e.Began)
	c.text(&e.Domain)
	c.text(&e.FD)
}

// peer writes a reference to an identity: 0 for none, else its number and 1,
// and when it is new the identity itself.
func (c *codec) peer(p *event.Peer, id uint64, fresh bool) {
	ref := id + 1
	if p == nil {
		ref, fresh = 0, false
	}
	c.uint(&ref)
	c.bool(&fresh)
	if fresh {
		c.identity(p)
	}
}

func (c *codec) readPeer(e *event.Event, peers []*event.Peer) []*event.Peer {
	var ref uint64
	var fresh bool
	c.uint(&ref)
	c.bool(&fresh)
	if fresh {
		p := new(event.Peer)
		c.identity(p)
		if ref == 1 {
			peers = peers[:0]
		}
		if ref != uint64(len(peers))+1 || ref > maxPeers {
			c.err = errDamaged
			return peers
		}
		peers = append(peers, p)
	}
	switch {
	case ref > uint64(len(peers)):
		c.err = errDamaged
	case ref > 0:
		e.Peer = peers[ref-1]
	}
	return peers
}

// writeFrames writes how many frames there are, and a reference to each: its
// number among those that are known and 1, or 0 and the frame itself.
func (c *codec) writeFrames(frames []event.Frame, known map[event.Frame]uint64) {
	if len(known)+len(frames) > maxFrames {
		clear(known)
	}
	frames = frames[:min(len(frames), maxDepth)]
	n := len(frames)
	number(c, &n)
	first := len(known) == 0 // what was known is forgotten
	if n > 0 {
		c.bool(&first)
	}
	for _, f := range frames {
		f.Symbol, f.Module = f.Symbol[:min(len(f.Symbol), maxName)], f.Module[:min(len(f.Module), maxName)]
		id, ok := known[f]
		if !ok {
			known[f] = uint64(len(known))
			c.uint(new(uint64))
			c.frame(&f)
			continue
		}
		id++
		c.uint(&id)
	}
}

func (c *codec) readFrames(e *event.Event, known []event.Frame) []event.Frame {
	var n int
	var first bool
	if number(c, &n); n == 0 {
		return known
	}
	if c.bool(&first); first {
		known = known[:0]
	}
	if n < 0 || n > min(maxDepth, len(c.b)) {
		c.err = errDamaged
		return known
	}
	e.Frames = make([]event.Frame, n)
	for i := range e.Frames {
		var ref uint64
		c.uint(&ref)
		switch {
		case ref > uint64(len(known)) || ref == 0 && len(known) >= maxFrames:
			c.err = errDamaged
			return known
		case ref > 0:
			e.Frames[i] = known[ref-1]
		default:
			f := &e.Frames[i]
			c.frame(f)
			if len(f.Symbol) > maxName || len(f.Module) > maxName || len(f.BuildID) > maxName {
				c.err = errDamaged
				return known
			}
			known = append(known, *f)
		}
	}
	return known
}

func (c *codec) frame(f *event.Frame) {
	for _, v := range []*uint64{&f.PC, &f.Start, &f.Offset, &f.Size, &f.ModuleOffset, &f.ModuleSize} {
		c.uint(v)
	}
	for _, v := range []*string{&f.Symbol, &f.Module, &f.BuildID} {
		c.text(v)
	}
}

func (c *codec) identity(p *event.Peer) {
	number(c, &p.PID)
	number(c, &p.UID)
	c.text(&p.User)
	c.uint(&p.Start)
	number(c, &p.Session)
	for _, v := range []*string{&p.Command, &p.Local, &p.Remote, &p.TLSName, &p.SASLName, &p.SELinux} {
		c.text(v)
	}
	number(c, &p.Via)
}
