// Package format writes what a trace saw: as text, as JSON lines (schema.md),
// and in the formats of the SystemTap scripts that libvirt's probes were made
// for. It reads payloads with trace/libvirt and trace/qmp, masks secrets unless
// configured otherwise, and escapes control characters.
package format

import (
	"io"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Format is a way to write events.
type Format string

// The formats.
const (
	Text  Format = ""      // for people: wall clock, names, arguments, durations
	JSON  Format = "json"  // one object a line
	STP   Format = "stp"   // as libvirt's example scripts print: rpc-monitor, events, qemu-monitor
	Raw   Format = "raw"   // RPC messages by number: client=0x… len=… program=…
	Named Format = "named" // the same by name
)

// Formats lists the formats by the names that a command line takes.
func Formats() []Format { return []Format{"text", JSON, STP, Raw, Named} }

// Config says how events are written. Its zero value is as text, without
// colour.
type Config struct {
	Format Format
	Color  bool // text: for a terminal
	Width  int  // text: of the terminal, in characters; 0 for lines of any length
	// Messages shows each message by itself, on both sides; else a call and its
	// reply are one line, and packets of streams none.
	Messages bool
	Verbose  bool // text: sockets, keepalive and how connections are set up, too
	Full     bool // payloads, stacks and monitor messages at full length
	Secrets  bool // secrets too
	Tree     bool // text: below a reply, the monitor commands that were sent for it
}

// Validate checks c.
func (c Config) Validate() error {
	switch c.Format {
	case Text, "text", JSON, STP, Raw, Named:
		return nil
	}
	return postern.Errorf(postern.Invalid, "no output format %q: there are %v", c.Format, Formats())
}

// Writer writes events. It is not safe for concurrent use. It buffers; Idle
// writes out.
type Writer struct {
	w     io.Writer
	c     Config
	style libvirt.Style
	buf   []byte
	dec   libvirt.Decoder
	begin uint64 // milliseconds of CLOCK_MONOTONIC
	write func(*event.Event)
	socks sockets

	answered map[answer]bool // calls that were shown and whose reply the client has not read
	daemons  daemons
	clock    clock
}

// flushAt is how many bytes are gathered before they are written.
const flushAt = 64 << 10

// New returns a writer of c's format to w.
func New(w io.Writer, c Config) (*Writer, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	f := &Writer{
		answered: map[answer]bool{}, daemons: daemons{}, w: w, c: c,
		style: libvirt.Style{Full: c.Full, Secrets: c.Secrets}, buf: make([]byte, 0, flushAt+4096),
	}
	if c.Full {
		f.dec.Limit = 1 << 20 // more than the largest capture can hold
	}
	switch c.Format {
	case JSON:
		f.write = f.json
	case STP:
		f.write = f.stp
	case Raw, Named:
		f.write = f.raw
	default:
		f.write = f.text
	}
	return f, nil
}

// Begin writes the format's opening line. The relative times of STP count from
// mono, nanoseconds of CLOCK_MONOTONIC; wall is the same moment.
func (f *Writer) Begin(mono uint64, wall time.Time) error {
	f.begin = mono / 1e6
	switch f.c.Format {
	case STP:
		f.buf = append(f.elapsed(mono), "begin\n"...)
	case JSON:
		f.beginJSON(mono, wall)
	}
	return f.Idle()
}

// Event writes one event.
func (f *Writer) Event(e *event.Event) error {
	f.socks.track(e)
	f.write(e)
	f.socks.untrack(e)
	if len(f.buf) >= flushAt {
		return f.Idle()
	}
	return nil
}

// End writes the format's closing line, if it has one.
func (f *Writer) End(seen uint64, losses []event.Loss) error {
	if f.c.Format == JSON {
		f.endJSON(seen, losses)
	}
	return f.Idle()
}

// Idle writes out what is buffered.
func (f *Writer) Idle() error {
	if len(f.buf) == 0 {
		return nil
	}
	_, err := f.w.Write(f.buf)
	f.buf = f.buf[:0]
	return err
}

// decode decodes an RPC event's payload. The message stands until the next call.
func (f *Writer) decode(e *event.Event) *libvirt.Message {
	return f.dec.Event(e)
}

// Replay is a sink for a recording, whose output begins at its first event.
type Replay struct {
	*Writer
	Stacks bool // shows the stacks that were recorded
	begun  bool
}

// Event writes one event.
func (r *Replay) Event(e *event.Event) error {
	if !r.begun {
		r.begun = true
		if err := r.Begin(e.Mono, e.Wall); err != nil {
			return err
		}
	}
	if !r.Stacks {
		e.Frames = nil
	}
	return r.Writer.Event(e)
}
