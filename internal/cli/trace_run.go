package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/record"
	"golang.org/x/term"
)

// writer opens the output and the format. The returned function closes it.
func (o *traceOptions) writer(a *app) (*format.Writer, func() error, error) {
	c := format.Config{
		Format: format.Format(o.format), Full: o.full, Secrets: o.secrets, Tree: o.with == "qemu",
		Messages: o.messages || o.stack || len(o.types) > 0, Verbose: o.verbose || o.stack,
	}
	if o.json {
		c.Format = format.JSON
	}
	var w io.Writer = a.out
	closer := func() error { return nil }
	if o.output != "" && o.output != "-" {
		f, err := openPrivate(o.output)
		if err != nil {
			return nil, nil, postern.Errorf(postern.Invalid, "%w", err)
		}
		w, closer = f, f.Close
	} else if f, ok := a.out.(*os.File); ok {
		o.terminal(&c, f)
	}
	fw, err := format.New(w, c)
	if err != nil {
		return nil, nil, errors.Join(postern.Errorf(postern.Invalid, "%w", err), closer())
	}
	return fw, closer, nil
}

// terminal fits what is written to a terminal.
func (o *traceOptions) terminal(c *format.Config, f *os.File) {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return // none
	}
	c.Color = os.Getenv("NO_COLOR") == ""
	if !o.full {
		c.Width = width
	}
}

// createPrivate makes a file to write payloads to. One that is there stays.
func createPrivate(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, postern.Errorf(postern.Conflict, "%s is there already", name).WithHint("name another file, or remove it")
	case err != nil:
		return nil, postern.Errorf(postern.Invalid, "%w", err)
	}
	return f, nil
}

// openPrivate opens a file to write payloads to, which are nobody else's
// business, whatever it was before.
func openPrivate(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		err = errors.Join(f.Chmod(0o600), f.Truncate(0))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (o *traceOptions) run(ctx context.Context, a *app) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	o.warn(a.err)
	w, closer, err := o.writer(a)
	if err != nil {
		return err
	}
	unwound := capture.Unwind(&cfg, w)
	s, err := capture.Start(cfg)
	if err != nil {
		return errors.Join(err, unwound.Close(), closer())
	}
	unwound.Watch(s)
	ready(a.err, s)
	err = w.Begin(system.Monotonic(), time.Now())
	if err == nil {
		err = s.Run(ctx, unwound)
	}
	if cerr := unwound.Close(); err == nil {
		err = cerr
	}
	sum := s.Summary()
	if err == nil {
		err = w.End(sum.Seen, sum.Losses)
	}
	summary(a.err, sum)
	return errors.Join(err, s.Close(), closer())
}

// warn says of users that this host does not know, which may be a slip, what they
// can still mean.
func (o *traceOptions) warn(w io.Writer) {
	for _, name := range o.unknownUsers {
		fmt.Fprintf(w, "warning: there is no user %q here: only a SASL identity of that name is shown\n", name)
	}
}

func (o *traceOptions) record(ctx context.Context, a *app, file string, limit int64) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	f, err := createPrivate(file)
	if err != nil {
		return err
	}
	cfg.Queue = true // a replay may show it
	recorder, err := record.NewRecorder(f, limit)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	unwound := capture.Unwind(&cfg, recorder)
	cfg.Record = unwound
	s, err := capture.Start(cfg)
	if err != nil {
		return errors.Join(err, unwound.Close(), f.Close(), os.Remove(file))
	}
	unwound.Watch(s)
	ready(a.err, s)
	err = s.Run(ctx, recordSink{unwound})
	if cerr := unwound.Close(); err == nil {
		err = cerr
	}
	if errors.Is(err, record.ErrFull) {
		fmt.Fprintf(a.err, "the recording has reached --max-size\n")
		err = nil
	}
	summary(a.err, s.Summary())
	if err == nil {
		err = recorder.Idle()
	}
	return errors.Join(err, s.Close(), f.Close())
}

// recordSink shows nothing: the session records by itself.
type recordSink struct{ event.Sink }

func (recordSink) Event(*event.Event) error { return nil }

func (o *traceOptions) replay(a *app, file string) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return postern.Errorf(postern.NotFound, "%w", err)
	}
	defer f.Close()
	w, closer, err := o.writer(a)
	if err != nil {
		return err
	}
	sum, err := record.Replay(f, cfg.Filter, cfg.Tree, &beginner{Writer: w, stacks: o.stack})
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", file, err), closer())
	}
	summary(a.err, sum)
	return errors.Join(w.End(sum.Seen, sum.Losses), closer())
}

// beginner begins the output at the first event of a recording.
type beginner struct {
	*format.Writer
	begun, stacks bool
}

func (b *beginner) Event(e *event.Event) error {
	if !b.begun {
		b.begun = true
		if err := b.Begin(e.Mono, e.Wall); err != nil {
			return err
		}
	}
	if !b.stacks {
		e.Frames = nil
	}
	return b.Writer.Event(e)
}

// ready says on the error stream that events are seen from now on.
func ready(w io.Writer, s *capture.Session) {
	files, pids := 0, map[int]bool{}
	for _, l := range s.Libraries() {
		if l.Err == nil {
			files++
		}
		for _, pid := range l.PIDs {
			pids[pid] = true
		}
	}
	fmt.Fprintf(w, "ready: watching %s of libvirt's in %s, and in those to come; Ctrl-C ends it\n",
		terminal.Counted(files, "file"), terminal.Counted(len(pids), "process"))
}

func summary(w io.Writer, sum event.Summary) {
	fmt.Fprintln(w, sum)
	for _, l := range sum.Losses {
		fmt.Fprintf(w, "  lost %d of %s in %s (%d)\n", l.Lost, l.Probe, l.Comm, l.PID)
	}
}
