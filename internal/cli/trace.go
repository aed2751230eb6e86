package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/collector"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/record"
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
			f, err := fl.flight(args[0])
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

// flight returns the recorder that keeps files of that name; nil without one.
func (o *flightFlags) flight(name string) (*record.Flight, error) {
	if name == "" {
		return nil, nil
	}
	keep, err := record.NewCondition(o.keepOn)
	const ring = 256 << 20
	return &record.Flight{Name: name, Ring: cmp.Or(int64(o.ring), ring), Limit: int64(o.limit), Keep: keep}, err
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
