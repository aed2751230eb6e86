package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/debuginfod"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/show"
	"github.com/postern-project/postern/internal/trace/stack"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// traceOptions are the flags of the commands that show events.
type traceOptions struct {
	cfg                  capture.Config
	shown                format.Config
	programs, procedures []string
	unknownUsers         []string // those of --user that this host does not know
	payload, buffer      terminal.Size
	format, output, with string
	json, offline        bool
	collector, host      string // of OpenTelemetry
}

func newTraceOptions(what capture.What) *traceOptions {
	return &traceOptions{cfg: capture.Config{What: what}}
}

// command returns a command that works on what its flags, which are those of the groups,
// say to watch.
func (o *traceOptions) command(
	a *app, use, short string, do func(context.Context, capture.Config, []string) error,
	groups ...func(*pflag.FlagSet),
) *cobra.Command {
	c := plain(use, short, func(ctx context.Context, args []string) error {
		cfg, err := o.config(a)
		if err != nil {
			return err
		}
		return do(ctx, cfg, args)
	})
	for _, add := range groups {
		add(c.Flags())
	}
	return c
}

// show adds the flags that say how events are written.
func (o *traceOptions) show(f *pflag.FlagSet) {
	f.StringVar(&o.format, "format", "text",
		"the `FORMAT` to write: text, json, stp (as SystemTap's example scripts), raw, named")
	f.BoolVar(&o.json, "json", false, "write one JSON object a line; the same as --format json")
	f.StringVarP(&o.output, "out", "o", "", "write to this `FILE` instead; - is standard output")
	f.BoolVar(&o.shown.Full, "full", false, "show payloads at full length")
	f.BoolVar(&o.shown.Secrets, "show-secrets", false, "show passwords and keys, which are masked otherwise")
}

// processes adds the flag that says whose events are seen.
func (o *traceOptions) processes(f *pflag.FlagSet) {
	f.Func("pid", "only these processes, by `PID`", each(o.cfg.Filter.AddPID))
}

// choose adds the flags that say of what events are seen.
func (o *traceOptions) choose(f *pflag.FlagSet) {
	o.processes(f)
	f.StringSliceVar(&o.cfg.Filter.Domains, "domain", nil, "only these virtual machines, by name: `GLOB`s")
}

// capture adds the flags of a live trace.
func (o *traceOptions) capture(f *pflag.FlagSet) {
	f.StringSliceVar(&o.cfg.Paths, "path", nil, "only these `FILE`s of libvirt's, instead of all that are found")
	o.payload = 16 << 10
	f.Var(&o.payload, "payload", "copy at most this `SIZE` of a message, up to 64KiB; 0 for headers only")
	f.Var(&o.buffer, "buffer",
		"`SIZE` of the buffer between kernel and postern, from 256KiB to 1GiB (default 4MiB, with --stack 64MiB)")
}

// stacks adds the flag that shows stacks, which are unwound while the processes are there.
func (o *traceOptions) stacks(f *pflag.FlagSet) {
	f.BoolVar(&o.cfg.Stack, "stack", false, "show the user stack of every event")
}

// names adds the flag that says where names of functions in stacks come from.
func (o *traceOptions) names(f *pflag.FlagSet) {
	f.BoolVar(&o.offline, "offline", false, "name functions without asking the servers of DEBUGINFOD_URLS")
}

// namer returns what names functions: debug files of this host and, unless offline, of
// debuginfod servers.
func (o *traceOptions) namer(a *app) show.Namer {
	return func(ctx context.Context) *stack.Namer {
		n := &stack.Namer{}
		if c := debuginfod.FromEnvironment(); c != nil && !o.offline {
			c.Fetching = func(url string) { fmt.Fprintln(a.err, "fetching", url) }
			c.Unavailable = func(err error) { fmt.Fprintln(a.err, "warning:", err) }
			n.Cached, n.Fetch = c.Cached, func(id string) (string, error) { return c.DebugFile(ctx, id) }
		}
		return n
	}
}

// rpc adds the filters on RPC messages.
func (o *traceOptions) rpc(f *pflag.FlagSet) {
	filter := &o.cfg.Filter
	f.Func("connection", "only these connections, by the `ADDRESS` that events show", each(filter.AddConnection))
	f.Func("user", "only clients of these users, by `NAME` or number", each(o.addUser))
	f.StringSliceVar(&o.programs, "program", nil, "only these RPC `PROGRAM`s: remote, qemu, lxc, admin, …")
	f.StringSliceVar(&o.procedures, "procedure", nil, "only these procedures; `GLOB`s: domain_*, qemu.*")
	f.Func("type", "only messages of this `TYPE`: call, reply, event, stream, hole", each(filter.AddType))
	f.Func("status", "only replies of this `STATUS`: ok, error, continue", each(filter.AddStatus))
	f.DurationVar(&filter.Slower, "slower", 0, "only calls that took at least this `DURATION`, such as 100ms")
	f.BoolVar(&filter.Errors, "errors", false, "only calls that failed, and clients that were refused")
}

// each returns a flag's function that takes values with commas between them.
func each(add func(string) error) func(string) error {
	return func(list string) error {
		for value := range strings.SplitSeq(list, ",") {
			if err := add(value); err != nil {
				return err
			}
		}
		return nil
	}
}

func (o *traceOptions) addUser(name string) error {
	if !o.cfg.Filter.AddUser(name) {
		o.unknownUsers = append(o.unknownUsers, name)
	}
	return nil
}

// lines adds the flags that say what a line for people is.
func (o *traceOptions) lines(f *pflag.FlagSet) {
	f.BoolVar(&o.shown.Messages, "messages", false,
		"show each message by itself, on both sides, not a line a call; --type and --stack do, too")
	f.BoolVarP(&o.shown.Verbose, "verbose", "v", false, "show sockets, keepalive and how connections are set up, too")
	f.StringVar(&o.with, "with", "", "also show `WHAT` belongs to a reply: qemu, the messages to and from QEMU")
}

// Bounds of the flags. The largest messages and stacks need some room beside each
// other.
const (
	maxPayload = 64 << 10
	minBuffer  = 256 << 10
	maxBuffer  = 1 << 30
)

// config completes and checks what the flags say to watch. It warns of users that this
// host does not know, which may be a slip.
func (o *traceOptions) config(a *app) (c capture.Config, err error) {
	switch {
	case o.payload > maxPayload:
		return c, postern.Errorf(postern.Invalid, "--payload %s is more than 64KiB", &o.payload)
	case o.buffer != 0 && (o.buffer < minBuffer || o.buffer > maxBuffer):
		return c, postern.Errorf(postern.Invalid, "--buffer %s is not between 256KiB and 1GiB", &o.buffer).
			WithHint("4MiB, the default, holds some 15000 messages, and stays in the processor's cache")
	case o.with != "" && o.with != "qemu":
		return c, postern.Errorf(postern.Invalid, "--with %s: only qemu can be shown with RPC", o.with)
	}
	c = o.cfg
	if c.Filter.Procedures, err = libvirt.Procedures(o.programs, o.procedures); err != nil {
		return c, err
	}
	c.Buffer, c.Payload = int(o.buffer), int(o.payload)
	if o.payload == 0 {
		c.Payload = -1
	}
	c.Tree = o.with == "qemu"
	c.Queue = c.Tree || o.json || format.Format(o.format) == format.JSON // text shows it with the tree
	if c.Tree {
		c.What |= capture.Monitor
	}
	for i, p := range c.Paths {
		if c.Paths[i], err = filepath.EvalSymlinks(p); err != nil {
			return c, postern.Errorf(postern.NotFound, "%w", err)
		}
	}
	for _, name := range o.unknownUsers {
		fmt.Fprintf(a.err, "warning: there is no user %q here: only a SASL identity of that name is shown\n", name)
	}
	return c, nil
}
