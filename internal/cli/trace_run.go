package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/stack"
)

// writer opens the output and the format. The returned function closes it.
func (o *traceOptions) writer(a *app) (w *format.Writer, closer func() error, err error) {
	c := o.shown
	c.Format, c.Tree = format.Format(o.format), o.with == "qemu"
	if o.json {
		c.Format = format.JSON
	}
	c.Messages = c.Messages || o.cfg.Stack || o.cfg.Filter.Types != 0
	c.Verbose = c.Verbose || o.cfg.Stack
	if o.output == "" || o.output == "-" {
		c.Color = a.screen.Colour
		if !c.Full {
			c.Width = a.screen.Width
		}
		w, err = format.New(a.out, c)
		return w, func() error { return nil }, err
	}
	f, err := durable.OpenPrivate(o.output)
	if err != nil {
		return nil, nil, err
	}
	if w, err = format.New(f, c); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return w, f.Close, nil
}

func (o *traceOptions) run(ctx context.Context, a *app) error {
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	w, closer, err := o.writer(a)
	if err != nil {
		return err
	}
	sink := stack.Naming{Sink: w}
	if cfg.Stack {
		ctx, stop := context.WithCancel(ctx)
		sink.Namer = o.namer(ctx, a)
		sink.Namer.Background = true // the trace does not wait
		defer sink.Namer.Close()
		defer stop()
	}
	sum, err := capture.Trace(ctx, cfg, sink, func(s *capture.Session) error {
		a.watching(s)
		return w.Begin(system.Monotonic(), time.Now())
	})
	if err == nil {
		err = w.End(sum.Seen, sum.Losses)
	}
	return errors.Join(a.traced(sum, err), closer())
}

// recorder is where a trace is recorded.
type recorder interface {
	Trace(ctx context.Context, c capture.Config, ready func(*capture.Session)) (event.Summary, bool, error)
}

func (o *traceOptions) record(ctx context.Context, a *app, f recorder) error {
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	sum, full, err := f.Trace(ctx, cfg, a.watching)
	if full {
		fmt.Fprintln(a.err, "the recording has reached --max-size")
	}
	return a.traced(sum, err)
}

func (o *traceOptions) replay(ctx context.Context, a *app, file string) error {
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	f, err := a.openInput(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w, closer, err := o.writer(a)
	if err != nil {
		return err
	}
	sink := stack.Naming{Sink: &format.Replay{Writer: w, Stacks: cfg.Stack}}
	if cfg.Stack {
		sink.Namer = o.namer(ctx, a)
	}
	sum, err := record.Replay(f, cfg.Filter, cfg.Tree, sink)
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", file, err), closer())
	}
	return errors.Join(a.traced(sum, w.End(sum.Seen, sum.Losses)), closer())
}

// watching says that events are seen from now on.
func (a *app) watching(s *capture.Session) {
	files, processes := s.Watched()
	fmt.Fprintf(a.err, "ready: watching %s of libvirt's in %s, and in those to come; Ctrl-C ends it\n",
		terminal.Counted(files, "file"), terminal.Counted(processes, "process"))
}

// traced says what a trace saw and lost, unless it could not begin. It returns the
// trace's error.
func (a *app) traced(sum event.Summary, err error) error {
	if err == nil || sum.Seen > 0 {
		printSummary(a.err, sum)
	}
	return err
}

func printSummary(w io.Writer, sum event.Summary) {
	fmt.Fprintln(w, sum)
	for _, l := range sum.Losses {
		fmt.Fprintf(w, "  lost %d of %s in %s (%d)\n", l.Lost, l.Probe, l.Comm, l.PID)
	}
}
