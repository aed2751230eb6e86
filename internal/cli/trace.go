package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/collector"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/record"
	"github.com/postern-project/postern/internal/trace/show"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newTrace(a *app) *cobra.Command {
	c := group("trace", "Watch libvirt",
		newTraceNow(a), newTraceRPC(a), newTraceEvents(a), newTraceQEMU(a), newTraceTop(a), newTraceProbes(a),
		newTraceRecord(a), newTraceReplay(a), newTraceReport(a), newTraceExport(a))
	files := protocolFlag(c.PersistentFlags())
	c.PersistentPreRunE = func(*cobra.Command, []string) error { return a.loadProtocol(*files) }
	return c
}

// protocolFlag adds the flag for protocol files that are newer than this program.
func protocolFlag(f *pflag.FlagSet) *[]string {
	return f.StringSlice("protocol", nil,
		"learn procedures from this protocol `FILE` of a newer libvirt, or from all in its sources")
}

// loadProtocol reads protocol files: those that are installed, and these.
func (a *app) loadProtocol(files []string) error {
	if err := libvirt.Load(libvirt.Installed()...); err != nil {
		fmt.Fprintln(a.err, "warning:", err)
	}
	return libvirt.Load(files...)
}

func newTraceRPC(a *app) *cobra.Command {
	o := newTraceOptions(capture.RPC)
	var c *cobra.Command
	c = o.command(a, "rpc", "Show RPC messages of clients and daemons, with their payloads",
		func(ctx context.Context, cfg capture.Config, _ []string) error {
			if o.collector == "" {
				return o.run(ctx, a, cfg)
			}
			return o.send(ctx, a, cfg, c.Flags())
		}, o.choose, o.rpc, o.lines, o.capture, o.stacks, o.names, o.show)
	f := c.Flags()
	f.StringVar(&o.collector, "otlp", "", "send spans to the OpenTelemetry collector at this `URL` instead")
	f.StringVar(&o.host, "host", "", "`NAME` of this host in spans (default: its host name)")
	return c
}

// send runs a trace whose calls go to a collector, instead of being shown.
func (o *traceOptions) send(ctx context.Context, a *app, cfg capture.Config, f *pflag.FlagSet) (err error) {
	for _, shown := range []string{"format", "json", "out", "full", "show-secrets", "stack", "messages", "verbose"} {
		if f.Changed(shown) {
			return postern.Errorf(postern.Invalid, "--otlp shows nothing, so --%s says nothing", shown)
		}
	}
	live := export.Live{Version: system.Version(), Warn: func(text string) { fmt.Fprintln(a.err, "warning:", text) }}
	if live.Host, err = system.HostName(o.host); err != nil {
		return err
	}
	if live.Collector, err = collector.Connect(ctx, o.collector); err != nil {
		return err
	}
	sum, sent, dropped, err := live.Trace(ctx, cfg, a.watching)
	if sent+dropped > 0 || err == nil {
		fmt.Fprintf(a.err, "%s sent, %d dropped\n", terminal.Counted(sent, "span"), dropped)
	}
	return a.traced(sum, err)
}

func newTraceEvents(a *app) *cobra.Command {
	o := newTraceOptions(capture.Loop)
	c := o.command(a, "events", "Show what the event loop does, and how long it takes",
		func(ctx context.Context, cfg capture.Config, _ []string) error { return o.run(ctx, a, cfg) },
		o.processes, o.capture, o.stacks, o.names, o.show)
	c.Flags().DurationVar(&o.cfg.Filter.Slow, "slow", 0,
		"only dispatches that took at least this `DURATION`, and loops that are stuck in one")
	return c
}

func newTraceQEMU(a *app) *cobra.Command {
	o := newTraceOptions(capture.Monitor)
	return o.command(a, "qemu", "Show the messages to and from QEMU's monitors",
		func(ctx context.Context, cfg capture.Config, _ []string) error { return o.run(ctx, a, cfg) },
		o.choose, o.capture, o.stacks, o.names, o.show)
}

func newTraceRecord(a *app) *cobra.Command {
	o := newTraceOptions(0)
	var what []string
	fl := flightFlags{limit: 1 << 30}
	c := o.command(a, "record FILE", "Record a trace, to be shown later",
		func(ctx context.Context, cfg capture.Config, args []string) (err error) {
			if cfg.What, err = capture.ParseWhat(what); err != nil {
				return err
			}
			if fl.keepOn == "" && fl.ring == 0 {
				return a.record(ctx, cfg, record.File{Name: args[0], Limit: int64(fl.limit)})
			}
			f, err := record.NewFlight(args[0], fl.keepOn, fl.ring, fl.limit)
			if err != nil {
				return err
			}
			f.Kept = func(file, reason string) { fmt.Fprintf(a.err, "kept %s: %s\n", file, reason) }
			f.Failed = func(_ string, err error) { fmt.Fprintf(a.err, "%v; the recorder goes on\n", err) }
			f.Removed = func(file string) { fmt.Fprintf(a.err, "removed %s: --max-size is reached\n", file) }
			return a.record(ctx, cfg, f)
		}, o.processes, o.capture)
	c.Flags().StringSliceVar(&what, "what", []string{"rpc", "qemu"}, "`WHAT` to record: rpc, qemu, events")
	fl.add(c.Flags(), "stop when the file has this `SIZE`; of files of --keep-on remove the oldest; 0 for no limit")
	c.Flags().BoolVar(&o.cfg.Stack, "stack", false, "record the user stack of every event")
	return c
}

// flightFlags are the flags of the flight recorder.
type flightFlags struct {
	keepOn      string
	ring, limit terminal.Size
}

func (o *flightFlags) add(f *pflag.FlagSet, limit string) {
	f.Var(&o.limit, "max-size", limit)
	f.StringVar(&o.keepOn, "keep-on", "", "write only what is around calls of which this `CONDITION` is true")
	f.Var(&o.ring, "ring", "of --keep-on: keep events in memory of this `SIZE` (default 256MiB)")
}

func newTraceReplay(a *app) *cobra.Command {
	o := newTraceOptions(0)
	c := o.command(a, "replay FILE", "Show a recorded trace",
		func(ctx context.Context, cfg capture.Config, args []string) error {
			return o.replay(ctx, a, cfg, args[0])
		},
		o.choose, o.rpc, o.lines, o.names, o.show)
	c.Flags().DurationVar(&o.cfg.Filter.Slow, "slow", 0,
		"of the event loop, only dispatches that took at least this `DURATION`")
	c.Flags().BoolVar(&o.cfg.Stack, "stack", false, "show the user stack of every event, as far as they were recorded")
	return c
}

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
	f, err := a.prompt().Open(file)
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
