package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/show"
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

func (o *traceOptions) run(ctx context.Context, a *app, cfg capture.Config) error {
	w, closer, err := o.writer(a)
	if err != nil {
		return err
	}
	sum, err := show.Live(ctx, cfg, w, o.namer(a), a.watching)
	return errors.Join(a.traced(sum, err), closer())
}

func (o *traceOptions) replay(ctx context.Context, a *app, cfg capture.Config, file string) error {
	f, err := a.openInput(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w, closer, err := o.writer(a)
	if err != nil {
		return err
	}
	sum, err := show.Recorded(ctx, f, file, cfg, w, o.namer(a))
	return errors.Join(a.traced(sum, err), closer())
}

// recorder is where a trace is recorded.
type recorder interface {
	Trace(ctx context.Context, c capture.Config, ready func(*capture.Session)) (event.Summary, bool, error)
}

func (a *app) record(ctx context.Context, cfg capture.Config, f recorder) error {
	sum, full, err := f.Trace(ctx, cfg, a.watching)
	if full {
		fmt.Fprintln(a.err, "the recording has reached --max-size")
	}
	return a.traced(sum, err)
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
