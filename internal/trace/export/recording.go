package export

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/stack"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// The formats that a recording is exported in.
const (
	FormatPcapng     = "pcapng"
	FormatPprof      = "pprof"
	FormatOTLP       = "otlp"
	FormatPerfetto   = "perfetto"
	FormatFolded     = "folded"      // stacks with the number of events
	FormatFoldedTime = "folded-time" // stacks with nanoseconds
)

var formats = []string{FormatPcapng, FormatPprof, FormatOTLP, FormatPerfetto, FormatFolded, FormatFoldedTime}

// Recording says how a recording is exported.
type Recording struct {
	Format        string // one of the formats above
	Filter        correlate.Filter
	Host, Version string       // of OTLP, see [SpansConfig]
	Collector     Collector    // of OTLP: is sent the spans; nil for none
	Namer         *stack.Namer // names functions that the recording does not; nil for none
}

// Validate returns an Invalid error for what cannot be exported.
func (r Recording) Validate() error {
	switch {
	case !slices.Contains(formats, r.Format):
		return postern.Errorf(postern.Invalid, "no format %q to export", r.Format).WithHint("there are %s",
			strings.Join(formats, ", "))
	case r.Collector != nil && r.Format != FormatOTLP:
		return postern.Errorf(postern.Invalid, "a collector takes the format otlp alone")
	}
	return nil
}

// Write writes what the filter chooses of a recording to w, which is nil where spans
// only go to a collector. It returns what the recording holds, and what was written, in
// words.
func (r Recording) Write(ctx context.Context, in io.Reader, w io.Writer) (sum event.Summary, written string,
	err error,
) {
	if err := r.Validate(); err != nil {
		return sum, "", err
	}
	x, err := r.sink(ctx, w)
	if err != nil {
		return sum, "", err
	}
	// Calls have the commands to QEMU that were sent for them.
	tree := r.Format == FormatOTLP || r.Format == FormatPerfetto
	if sum, err = record.Replay(in, r.Filter, tree, stack.Naming{Sink: x, Namer: r.namer()}); err != nil {
		return sum, "", err
	}
	written, err = x.finish()
	return sum, written, err
}

// namer returns what names functions, where stacks are written at all.
func (r Recording) namer() *stack.Namer {
	switch r.Format {
	case FormatPprof, FormatFolded, FormatFoldedTime:
		return r.Namer
	}
	return nil
}

// recordingSink takes the events of a recording.
type recordingSink interface {
	event.Sink
	// finish writes what is left, and says what has been written.
	finish() (string, error)
}

func (r Recording) sink(ctx context.Context, w io.Writer) (recordingSink, error) {
	switch r.Format {
	case FormatPcapng:
		x, err := NewPcapng(w)
		return packets{x}, err
	case FormatPprof:
		return &stacks{write: func(p *Profile) error { return p.Write(w) }}, nil
	case FormatFolded, FormatFoldedTime:
		return &stacks{write: func(p *Profile) error { return p.WriteFolded(w, r.Format == FormatFoldedTime) }}, nil
	case FormatPerfetto:
		return NewPerfetto(w), nil
	}
	x := &spans{w: w, to: r.Collector, ctx: ctx}
	x.Spans = NewSpans(SpansConfig{Host: r.Host, Version: r.Version, Send: x.send})
	return x, nil
}

type packets struct{ *Pcapng }

func (x packets) finish() (string, error) {
	return terminal.Counted(x.Messages, "message") + " written", x.Idle()
}

type stacks struct {
	Profile
	write func(*Profile) error
}

func (x *stacks) finish() (string, error) {
	n := int(x.Samples())
	if n == 0 {
		return "", postern.Errorf(postern.Invalid, "no event of the recording has a stack").
			WithHint("record with stacks")
	}
	return "stacks of " + terminal.Counted(n, "event") + " written", x.write(&x.Profile)
}

// spans writes the spans of a recording to a file, or sends them, or both.
type spans struct {
	*Spans
	w     io.Writer // nil for none
	to    Collector // nil for none
	ctx   context.Context
	line  []byte
	count int
}

func (x *spans) send(spans []*tracepb.ResourceSpans) error {
	x.count += CountSpans(spans)
	if x.to != nil {
		if err := x.to.UploadTraces(x.ctx, spans); err != nil {
			return postern.Errorf(postern.Unavailable, "the collector does not take spans: %w", err)
		}
	}
	if x.w == nil {
		return nil
	}
	var err error
	if x.line, err = AppendSpans(x.line[:0], spans); err != nil {
		return err
	}
	_, err = x.w.Write(x.line)
	return err
}

func (x *spans) finish() (string, error) {
	done := " written"
	if x.to != nil {
		done = " sent"
	}
	err := x.Idle()
	return terminal.Counted(x.count, "span") + done, err
}
