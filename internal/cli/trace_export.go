package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/collector"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/spf13/cobra"
)

const exportLong = `Write what was recorded, or what the filters choose of it, as other programs read
it. Files are readable by their owner alone.

pcapng: the RPC messages of daemons as a capture, which Wireshark and tshark decode
with their libvirt dissector: also those that went over TLS or a Unix socket.
Addresses and ports in it are made up. Secrets in the messages are in the capture
too.

pprof: the stacks of a recording that was made with --stack as a profile: how many
events, and the time that calls, monitor commands and dispatches took. Each sample
has labels: event, side, procedure, pid, thread, machine, and of the client user
and command.

otlp: OpenTelemetry's spans, as lines that a collector's file receiver reads, or
sent to a collector by OTLP over HTTP. A call is a span of each side that was seen,
linked to one trace, and below the daemon's the commands to QEMU for it. Spans
have the names of OpenTelemetry's conventions for RPC; a trace's own begin with
libvirt. and qmp. Secrets are masked. A call without an answer has no span. What a
collector wants besides the address is taken from the environment:
OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE.`

func newTraceExport(a *app) *cobra.Command {
	o := newTraceOptions(0)
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write a recorded trace for other programs",
		Long:  exportLong,
		Example: `  postern trace export -o libvirt.pcapng /tmp/libvirt.trace
  tshark -r libvirt.pcapng -O libvirt
  postern trace export --format pprof -o libvirt.pb.gz /tmp/libvirt.trace
  go tool pprof -top -tagfocus side=server libvirt.pb.gz
  postern trace export --format otlp -o libvirt.jsonl --slower 100ms /tmp/libvirt.trace
  postern trace export --format otlp --to https://collector.example.com:4318 /tmp/libvirt.trace`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.export(cmd.Context(), a, args[0]) },
	}
	o.choose(c)
	o.rpc(c)
	f := c.Flags()
	f.StringVar(&o.format, "format", "pcapng", "the `FORMAT` to write: pcapng, pprof, otlp")
	f.StringVarP(&o.output, "out", "o", "", "the `FILE` to write; - is standard output")
	f.StringVar(&o.collector, "to", "", "of otlp: send to the collector at this `URL`")
	f.StringVar(&o.host, "host", "", "of otlp: `NAME` of the host that was recorded (default: this one's)")
	return c
}

func (o *traceOptions) export(ctx context.Context, a *app, file string) error {
	if o.output == "" && o.collector == "" {
		return postern.Errorf(postern.Invalid, "no file to write").WithHint("name it with --out")
	}
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	x := export.Recording{Format: o.format, Filter: cfg.Filter, Version: version()}
	if x.Host, err = hostName(o.host); err != nil {
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
	in, err := os.Open(file)
	if err != nil {
		return postern.Errorf(postern.NotFound, "%w", err)
	}
	defer in.Close()
	return a.writePrivate(o.output, func(w io.Writer) error {
		sum, written, err := x.Write(ctx, in, w)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
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
