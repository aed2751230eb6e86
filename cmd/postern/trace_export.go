package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/trace"
	"github.com/postern-project/postern/trace/format"
	"github.com/spf13/cobra"
)

func newTraceExport(a *app) *cobra.Command {
	o := &traceOptions{}
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write a recorded trace for other programs",
		Long: `Write what was recorded, or what the filters choose of it, as other programs read
it.

pcapng: the RPC messages of daemons as a capture, which Wireshark and tshark decode
with their libvirt dissector: also those that went over TLS or a Unix socket.
Addresses and ports in it are made up. Secrets in the messages are in the capture
too.

pprof: the stacks of a recording that was made with --stack as a profile: how many
events, and the time that calls, monitor commands and dispatches took. Each sample
has labels: event, side, procedure, pid, thread, machine, and of the client user
and command.

What is written is readable by its owner alone.`,
		Example: `  postern trace export -o libvirt.pcapng /tmp/libvirt.trace
  tshark -r libvirt.pcapng -O libvirt
  postern trace export --format pprof -o libvirt.pb.gz /tmp/libvirt.trace
  go tool pprof -top -tagfocus side=server libvirt.pb.gz`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return o.export(a, args[0]) },
	}
	o.choose(c)
	o.messages(c)
	c.Flags().StringVar(&o.format, "format", "pcapng", "what to write: pcapng, pprof")
	c.Flags().StringVarP(&o.output, "output", "o", "", "the `file` to write")
	return c
}

// exportSink takes the events of a recording.
type exportSink interface {
	trace.Sink
	// finish writes what is left, and says what has been written.
	finish() (string, error)
}

func (o *traceOptions) export(a *app, file string) (err error) {
	begin := map[string]func(io.Writer) (exportSink, error){"pcapng": exportCapture, "pprof": exportProfile}[o.format]
	if begin == nil {
		return postern.Errorf(postern.Invalid, "no format %q to export", o.format).WithHint("there are pcapng and pprof")
	}
	if o.output == "" {
		return postern.Errorf(postern.Invalid, "no file to write").WithHint("name it with --output")
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
	out, err := createPrivate(o.output)
	if err != nil {
		return err
	}
	written, sum, err := export(in, out, cfg.Filter, begin)
	if err := errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", file, err), os.Remove(o.output))
	}
	summary(a.err, sum)
	fmt.Fprintln(a.err, written)
	return nil
}

func export(in io.Reader, out io.Writer, f trace.Filter, begin func(io.Writer) (exportSink, error)) (string, trace.Summary, error) {
	x, err := begin(out)
	if err != nil {
		return "", trace.Summary{}, err
	}
	sum, err := trace.Replay(in, f, false, x)
	if err != nil {
		return "", sum, err
	}
	written, err := x.finish()
	return written, sum, err
}

type captureExport struct{ *trace.Capture }

func exportCapture(w io.Writer) (exportSink, error) {
	x, err := trace.NewCapture(w)
	return captureExport{x}, err
}

func (x captureExport) finish() (string, error) {
	return count(x.Messages, "message", "messages") + " written", x.Idle()
}

type profileExport struct {
	format.Profile
	w io.Writer
}

func exportProfile(w io.Writer) (exportSink, error) { return &profileExport{w: w}, nil }

func (x *profileExport) finish() (string, error) {
	n := int(x.Samples())
	if n == 0 {
		return "", postern.Errorf(postern.Invalid, "no event of the recording has a stack").WithHint("postern trace record --stack records them")
	}
	return "stacks of " + count(n, "event", "events") + " written", x.Write(x.w)
}
