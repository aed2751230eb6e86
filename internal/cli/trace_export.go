package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/postern-project/postern/internal/trace/record"
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
linked to one trace, and below the daemon's what was said to QEMU for it. Spans
have the names of OpenTelemetry's conventions for RPC; a trace's own begin with
libvirt. and qmp. Secrets are masked. A call without an answer has no span. What a
collector wants besides the address is taken from the environment:
OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE.`

func newTraceExport(a *app) *cobra.Command {
	o := &traceOptions{}
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
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return o.export(cmd.Context(), a, args[0]) },
	}
	o.choose(c)
	o.rpc(c)
	f := c.Flags()
	f.StringVar(&o.format, "format", "pcapng", "the `FORMAT` to write: pcapng, pprof, otlp")
	f.StringVarP(&o.output, "out", "o", "", "the `FILE` to write")
	f.StringVar(&o.collector, "to", "", "of otlp: send to the collector at this `URL`")
	f.StringVar(&o.host, "host", "", "of otlp: `NAME` of the host that was recorded (default: this one's)")
	return c
}

// exportSink takes the events of a recording.
type exportSink interface {
	event.Sink
	// finish writes what is left, and says what has been written.
	finish() (string, error)
}

// exporter begins to write o.format to w, which is nil where no file is named.
func (o *traceOptions) exporter(ctx context.Context, w io.Writer) (exportSink, error) {
	switch o.format {
	case "pcapng":
		x, err := export.NewPcapng(w)
		return captureExport{x}, err
	case "pprof":
		return &profileExport{w: w}, nil
	}
	return o.exportSpans(ctx, w)
}

// checkExport fails for flags that do not go together.
func (o *traceOptions) checkExport() error {
	switch {
	case !slices.Contains([]string{"pcapng", "pprof", "otlp"}, o.format):
		return postern.Errorf(postern.Invalid, "no format %q to export", o.format).WithHint("there are pcapng, pprof and otlp")
	case o.collector != "" && o.format != "otlp":
		return postern.Errorf(postern.Invalid, "--to is for --format otlp")
	case o.output == "" && o.collector == "":
		return postern.Errorf(postern.Invalid, "no file to write").WithHint("name it with --out")
	}
	return nil
}

func (o *traceOptions) export(ctx context.Context, a *app, file string) error {
	if err := o.checkExport(); err != nil {
		return err
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	o.warn(a.err)
	in, err := os.Open(file)
	if err != nil {
		return postern.Errorf(postern.NotFound, "%w", err)
	}
	defer in.Close()
	var out *os.File
	var w io.Writer
	switch o.output {
	case "":
	case "-":
		w = a.out
	default:
		if out, err = createPrivate(o.output); err != nil {
			return err
		}
		w = out
	}
	sum, written, err := o.exportTo(ctx, in, w, cfg.Filter)
	if out != nil {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(o.output))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	summary(a.err, sum)
	fmt.Fprintln(a.err, written)
	return nil
}

func (o *traceOptions) exportTo(ctx context.Context, in io.Reader, w io.Writer, f correlate.Filter) (sum event.Summary, written string, err error) {
	x, err := o.exporter(ctx, w)
	if err != nil {
		return sum, "", err
	}
	// Spans have what was said to QEMU below the call that it was said for.
	if sum, err = record.Replay(in, f, o.format == "otlp", x); err != nil {
		return sum, "", err
	}
	written, err = x.finish()
	return sum, written, err
}

type captureExport struct{ *export.Pcapng }

func (x captureExport) finish() (string, error) {
	return terminal.Counted(x.Messages, "message") + " written", x.Idle()
}

type profileExport struct {
	export.Profile
	w io.Writer
}

func (x *profileExport) finish() (string, error) {
	n := int(x.Samples())
	if n == 0 {
		return "", postern.Errorf(postern.Invalid, "no event of the recording has a stack").WithHint("postern trace record --stack records them")
	}
	return "stacks of " + terminal.Counted(n, "event") + " written", x.Write(x.w)
}
