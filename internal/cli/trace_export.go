package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/collector"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/postern-project/postern/internal/trace/report"
	"github.com/spf13/cobra"
)

func newTraceExport(a *app) *cobra.Command {
	o := newTraceOptions(0)
	c := o.command(a, "export FILE", "Write a recorded trace for other programs",
		func(ctx context.Context, cfg capture.Config, args []string) error {
			return o.export(ctx, a, cfg, args[0])
		},
		o.choose, o.rpc, o.names)
	f := c.Flags()
	f.StringVar(&o.format, "format", "pcapng",
		"the `FORMAT` to write: pcapng, pprof, folded, folded-time, perfetto, otlp")
	f.StringVarP(&o.output, "out", "o", "", "the `FILE` to write; - is standard output")
	f.StringVar(&o.collector, "to", "", "of otlp: send to the collector at this `URL`")
	f.StringVar(&o.host, "host", "", "of otlp: `NAME` of the host that was recorded (default: this one's)")
	return c
}

func (o *traceOptions) export(ctx context.Context, a *app, cfg capture.Config, file string) (err error) {
	if o.output == "" && o.collector == "" {
		return postern.Errorf(postern.Invalid, "no file to write").WithHint("name it with --out")
	}
	x := export.Recording{Format: o.format, Filter: cfg.Filter, Version: system.Version(), Namer: o.namer(a)(ctx)}
	if x.Host, err = system.HostName(o.host); err != nil {
		return err
	}
	if o.collector != "" {
		if x.Collector, err = collector.Connect(ctx, o.collector); err != nil {
			return err
		}
	}
	if err := x.Validate(); err != nil {
		return err
	}
	return a.convert(file, o.output, func(in io.Reader, w io.Writer) (event.Summary, string, error) {
		return x.Write(ctx, in, w)
	})
}

// convert has write make a file of a recording, see [app.writePrivate], and prints what
// that holds and what was written.
func (a *app) convert(from, to string, write func(io.Reader, io.Writer) (event.Summary, string, error)) error {
	in, err := a.prompt().Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return a.writePrivate(to, func(w io.Writer) error {
		end := terminal.Working(a.err, "reading "+from)
		sum, written, err := write(in, w)
		end()
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		printSummary(a.err, sum)
		fmt.Fprintln(a.err, written)
		return nil
	})
}

// writePrivate has write fill the new file of that name, which is removed if that
// fails, or standard output where it is "-". Without a name it gets nil.
func (a *app) writePrivate(name string, write func(io.Writer) error) error {
	switch name {
	case "":
		return write(nil)
	case "-":
		return write(a.out)
	}
	f, err := durable.CreatePrivate(name)
	if err != nil {
		return err
	}
	if err = errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

func newTraceReport(a *app) *cobra.Command {
	o := newTraceOptions(0)
	c := o.command(a, "report FILE", "Make a page of a recorded trace",
		func(ctx context.Context, cfg capture.Config, args []string) error {
			r := report.Report{
				Filter: cfg.Filter, Name: filepath.Base(args[0]), Version: system.Version(), Namer: o.namer(a)(ctx),
			}
			return a.convert(args[0], o.output, r.Write)
		}, o.choose, o.rpc, o.names)
	c.Flags().StringVarP(&o.output, "out", "o", "", "the `FILE` to write; - is standard output")
	required(c, "out")
	return c
}
