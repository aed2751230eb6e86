package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/trace"
	"github.com/postern-project/postern/trace/event"
	"github.com/postern-project/postern/trace/format"
	"github.com/postern-project/postern/trace/libvirt"
	"github.com/postern-project/postern/trace/stack"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func newTrace(a *app) *cobra.Command {
	c := group("trace", "Watch libvirt",
		newTraceRPC(a), newTraceEvents(a), newTraceQEMU(a), newTraceTop(a), newTraceProbes(a), newTraceRecord(a), newTraceReplay(a), newTraceExport(a))
	c.Long = `Watch libvirt through the static probes that it already carries: who calls
what on it, what its event loop does, what is said to QEMU. Nothing is
restarted, and nothing has to be installed beside libvirt. Needs a kernel of
5.15 or newer, and root or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE.`
	return c
}

// traceOptions are the flags of the commands that show events.
type traceOptions struct {
	what trace.What

	pids, clients, users, programs, procedures, types, statuses, domains, paths []string

	slower, slow         time.Duration
	failed               bool
	format, output, with string
	json, full, secrets  bool
	stack                bool
	payload, buffer      int
}

// show adds the flags that say how events are written.
func (o *traceOptions) show(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.format, "format", "people", "how to write: people, json, stp (as SystemTap's example scripts), raw, named")
	f.BoolVar(&o.json, "json", false, "write one JSON object a line; the same as --format json")
	f.StringVarP(&o.output, "output", "o", "", "write to this `file` instead")
	f.BoolVar(&o.full, "full", false, "show payloads at full length")
	f.BoolVar(&o.secrets, "show-secrets", false, "show passwords and keys, which are masked otherwise")
}

// choose adds the flags that say whose events are seen.
func (o *traceOptions) choose(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&o.pids, "pid", nil, "only these processes, by `number`")
	f.StringSliceVar(&o.domains, "domain", nil, "only these virtual machines, by name; `glob`s")
}

// capture adds the flags of a live trace.
func (o *traceOptions) capture(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&o.paths, "path", nil, "only these `file`s of libvirt's, instead of all that are found")
	f.IntVar(&o.payload, "payload", 16<<10, "copy at most so many `bytes` of a message, up to 65536; 0 for headers only")
	f.IntVar(&o.buffer, "buffer", 4<<20, "`bytes` of the buffer between kernel and postern")
}

// stacks adds the flag for stacks. They are unwound while the processes are there,
// so a recording has none.
func (o *traceOptions) stacks(c *cobra.Command) {
	c.Flags().BoolVar(&o.stack, "stack", false, "show the user stack of every event")
}

// messages adds the filters on RPC messages.
func (o *traceOptions) messages(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&o.clients, "connection", nil, "only these connections, by the `address` that events show")
	f.StringSliceVar(&o.users, "user", nil, "only clients of these users, by `name` or number")
	f.StringSliceVar(&o.programs, "program", nil, "only these RPC programs: remote, qemu, lxc, admin, …")
	f.StringSliceVar(&o.procedures, "procedure", nil, "only these procedures; `glob`s: domain_*, qemu.*")
	f.StringSliceVar(&o.types, "type", nil, "only these message types: call, reply, event, stream, hole")
	f.StringSliceVar(&o.statuses, "status", nil, "only replies of these statuses: ok, error, continue")
	f.DurationVar(&o.slower, "slower", 0, "only calls that took at least so long, such as 100ms")
	f.BoolVar(&o.failed, "errors", false, "only calls that failed, and clients that were refused")
	f.StringVar(&o.with, "with", "", "qemu: show below each reply what was said to QEMU for it")
}

func newTraceRPC(a *app) *cobra.Command {
	o := &traceOptions{what: trace.RPC}
	c := &cobra.Command{
		Use:   "rpc",
		Short: "Show RPC messages of clients and daemons, with their payloads",
		Long: `Show every RPC message that libvirt's clients and daemons send and receive on
this host, with connections, authentication, TLS, keepalive and streams. Replies
carry how long the call took. Messages on encrypted connections are shown in
clear; secrets in them are masked.`,
		Example: `  postern trace rpc
  postern trace rpc --procedure 'domain_*' --slower 100ms
  postern trace rpc --user alice --with qemu
  postern trace rpc --format stp`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a) },
	}
	o.choose(c)
	o.messages(c)
	o.capture(c)
	o.stacks(c)
	o.show(c)
	return c
}

func newTraceEvents(a *app) *cobra.Command {
	o := &traceOptions{what: trace.Loop}
	c := &cobra.Command{
		Use:   "events",
		Short: "Show what the event loop does, and how long it takes",
		Long: `Show handles and timeouts of libvirt's event loops as they are added, updated,
dispatched and removed, with what each file descriptor is and how long each
dispatch took.`,
		Example: `  postern trace events
  postern trace events --slow 50ms`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a) },
	}
	c.Flags().StringSliceVar(&o.pids, "pid", nil, "only these processes, by `number`")
	c.Flags().DurationVar(&o.slow, "slow", 0, "only dispatches that took at least so long, and loops that are stuck in one")
	o.capture(c)
	o.stacks(c)
	o.show(c)
	return c
}

func newTraceQEMU(a *app) *cobra.Command {
	o := &traceOptions{what: trace.Monitor}
	c := &cobra.Command{
		Use:   "qemu",
		Short: "Show what is said to QEMU's monitors",
		Long: `Show the commands that libvirt sends to QEMU's monitors, the answers and how long
they took, events, and file descriptors that are passed.`,
		Example: `  postern trace qemu
  postern trace qemu --domain vm1 --full`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a) },
	}
	o.choose(c)
	o.capture(c)
	o.stacks(c)
	o.show(c)
	return c
}

func newTraceRecord(a *app) *cobra.Command {
	o := &traceOptions{}
	var what []string
	var limit int64
	c := &cobra.Command{
		Use:   "record FILE",
		Short: "Record a trace, to be shown later",
		Long: `Record what libvirt's probes tell into a file, which postern trace replay shows
later, with any filter. The file holds messages as they were, secrets included:
it is readable by its owner alone.`,
		Example: `  postern trace record /tmp/libvirt.trace
  postern trace record --what rpc,qemu,events --max-size 100000000 /tmp/libvirt.trace`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, w := range what {
				bit, ok := map[string]trace.What{"rpc": trace.RPC, "events": trace.Loop, "qemu": trace.Monitor}[w]
				if !ok {
					return postern.Errorf(postern.Invalid, "nothing called %q to record", w).WithHint("--what takes rpc, qemu and events")
				}
				o.what |= bit
			}
			return o.record(cmd.Context(), a, args[0], limit)
		},
	}
	c.Flags().StringSliceVar(&what, "what", []string{"rpc", "qemu"}, "what to record: rpc, qemu, events")
	c.Flags().Int64Var(&limit, "max-size", 1<<30, "stop when the file has so many `bytes`; 0 for no limit")
	c.Flags().StringSliceVar(&o.pids, "pid", nil, "only these processes, by `number`")
	o.capture(c)
	return c
}

func newTraceReplay(a *app) *cobra.Command {
	o := &traceOptions{}
	c := &cobra.Command{
		Use:   "replay FILE",
		Short: "Show a recorded trace",
		Long:  `Show a trace that postern trace record wrote, in any format and through any filter.`,
		Example: `  postern trace replay /tmp/libvirt.trace
  postern trace replay --errors --json /tmp/libvirt.trace`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return o.replay(a, args[0]) },
	}
	o.choose(c)
	o.messages(c)
	c.Flags().DurationVar(&o.slow, "slow", 0, "of the event loop, only dispatches that took at least so long")
	o.show(c)
	return c
}

func newTraceExport(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Write a recorded trace as a capture for Wireshark",
		Long: `Write the RPC messages of a recorded trace's daemons as a pcapng capture, which
Wireshark and tshark decode with their libvirt dissector: also those that went
over TLS or a Unix socket. Addresses and ports in it are made up. Secrets in the
messages are in the capture too: it is readable by its owner alone.`,
		Example: `  postern trace export -o libvirt.pcapng /tmp/libvirt.trace
  tshark -r libvirt.pcapng -O libvirt`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error { return exportPCAP(a, args[0], output) },
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the `file` to write")
	return c
}

func exportPCAP(a *app, file, output string) error {
	if output == "" {
		return postern.Errorf(postern.Invalid, "no file to write").WithHint("name it with --output")
	}
	in, err := os.Open(file)
	if err != nil {
		return postern.Errorf(postern.NotFound, "%w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(output, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return postern.Errorf(postern.Conflict, "%w", err)
	}
	n, err := trace.ExportPCAP(in, out)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%d messages written\n", n)
	return nil
}

// config turns the flags into what the session wants.
func (o *traceOptions) config() (trace.Config, error) {
	if o.payload < 0 || o.payload > 64<<10 {
		return trace.Config{}, postern.Errorf(postern.Invalid, "--payload %d is not between 0 and 65536 bytes", o.payload)
	}
	if o.slow < 0 || o.slower < 0 {
		return trace.Config{}, postern.Errorf(postern.Invalid, "--slow and --slower are not negative")
	}
	f, err := o.filter()
	if err != nil {
		return trace.Config{}, err
	}
	c := trace.Config{What: o.what, Paths: o.paths, Stack: o.stack, Filter: f, Buffer: o.buffer, Payload: o.payload}
	if o.payload == 0 {
		c.Payload = -1
	}
	c.Queue = o.json || format.Format(o.format) == format.JSON // people see it with the tree
	switch o.with {
	case "":
	case "qemu":
		c.What |= trace.Monitor
		c.Tree, c.Queue = true, true
	default:
		return c, postern.Errorf(postern.Invalid, "--with %s: only qemu can be shown with RPC", o.with)
	}
	for i, p := range c.Paths {
		if c.Paths[i], err = filepath.EvalSymlinks(p); err != nil {
			return c, postern.Errorf(postern.NotFound, "%w", err)
		}
	}
	return c, nil
}

func (o *traceOptions) filter() (trace.Filter, error) {
	f := trace.Filter{Domains: o.domains, Slower: o.slower, Errors: o.failed, Slow: o.slow}
	var err error
	for _, s := range o.pids {
		pid, err := strconv.ParseUint(s, 10, 31)
		if err != nil || pid == 0 {
			return f, postern.Errorf(postern.Invalid, "--pid %s: not a process number", s)
		}
		f.PIDs = append(f.PIDs, int(pid))
	}
	for _, s := range o.clients {
		client, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64)
		if err != nil {
			return f, postern.Errorf(postern.Invalid, "--connection %s: not an address such as 0x55d0c8a2e010", s)
		}
		f.Clients = append(f.Clients, client)
	}
	for _, name := range o.users {
		f.Users = append(f.Users, name)
		if u, err := user.Lookup(name); err == nil {
			f.Users = append(f.Users, u.Uid)
		}
	}
	if f.Types, err = bits("--type", o.types, map[string]uint32{"call": 1<<0 | 1<<4, "reply": 1<<1 | 1<<5, "event": 1 << 2, "message": 1 << 2, "stream": 1 << 3, "hole": 1 << 6}); err != nil {
		return f, err
	}
	if f.Statuses, err = bits("--status", o.statuses, map[string]uint32{"ok": 1, "error": 2, "continue": 4}); err != nil {
		return f, err
	}
	f.Procedures, err = procedures(o.programs, o.procedures)
	return f, err
}

// bits turns words into a set.
func bits(flag string, words []string, known map[string]uint32) (uint32, error) {
	var set uint32
	for _, w := range words {
		bit, ok := known[w]
		if !ok {
			var names []string
			for n := range known {
				names = append(names, n)
			}
			slices.Sort(names)
			return 0, postern.Errorf(postern.Invalid, "%s %s: there are %s", flag, w, strings.Join(names, ", "))
		}
		set |= bit
	}
	return set, nil
}

// procedures returns the numbers of the procedures that the globs name, in the
// programs that are named; nil when none are.
func procedures(programs, globs []string) (map[trace.Procedure]bool, error) {
	if len(programs) == 0 && len(globs) == 0 {
		return nil, nil
	}
	if len(globs) == 0 {
		globs = []string{"*"}
	}
	in := map[string]bool{}
	for _, p := range programs {
		if len(libvirt.Match(p+".*")) == 0 {
			return nil, postern.Errorf(postern.Invalid, "--program %s: no such program", p)
		}
		for _, n := range libvirt.Match(p + ".*") {
			in[n.Program.Name] = true
		}
	}
	set := map[trace.Procedure]bool{}
	for _, g := range globs {
		found := libvirt.Match(g)
		if len(found) == 0 {
			return nil, postern.Errorf(postern.Invalid, "--procedure %s: no procedure fits", g).
				WithHint("names are as in domain_create_xml; globs take * and ?")
		}
		for _, n := range found {
			if len(in) == 0 || in[n.Program.Name] {
				set[trace.Procedure{Prog: n.Program.Number, Proc: n.Procedure.Number}] = true
			}
		}
	}
	return set, nil
}

// writer opens the output and the format. The returned function closes it.
func (o *traceOptions) writer(a *app, unwind func(*event.Event) []stack.Frame) (*format.Writer, func() error, error) {
	c := format.Config{Format: format.Format(o.format), Full: o.full, Secrets: o.secrets, Tree: o.with == "qemu", Unwind: unwind}
	if o.json {
		c.Format = format.JSON
	}
	var w io.Writer = a.out
	closer := func() error { return nil }
	if o.output != "" {
		f, err := openPrivate(o.output)
		if err != nil {
			return nil, nil, postern.Errorf(postern.Invalid, "%w", err)
		}
		w, closer = f, f.Close
	} else if f, ok := a.out.(*os.File); ok {
		c.Color = term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
	}
	fw, err := format.New(w, c)
	if err != nil {
		return nil, nil, errors.Join(postern.Errorf(postern.Invalid, "%w", err), closer())
	}
	return fw, closer, nil
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
	u := stack.New(stack.Config{})
	defer u.Close()
	var unwind func(*event.Event) []stack.Frame
	if o.stack {
		cfg.Stacked, unwind = u.Meet, u.Unwind
	}
	w, closer, err := o.writer(a, unwind)
	if err != nil {
		return err
	}
	s, err := trace.Start(cfg)
	if err != nil {
		return errors.Join(err, closer())
	}
	if o.stack {
		watchAll(u, s)
	}
	ready(a.err, s)
	err = w.Begin(monotonic(), time.Now())
	if err == nil {
		err = o.follow(ctx, s, w)
	}
	sum := s.Summary()
	if err == nil {
		err = w.End(sum.Seen, sum.Losses)
	}
	summary(a.err, sum)
	return errors.Join(err, s.Close(), closer())
}

// follow runs the session. Stacks are unwound behind it, so that it is in time to
// look at processes that live for milliseconds.
func (o *traceOptions) follow(ctx context.Context, s *trace.Session, w trace.Sink) error {
	if !o.stack {
		return s.Run(ctx, w)
	}
	b := trace.NewBehind(w)
	return errors.Join(s.Run(ctx, b), b.Close())
}

// watchAll prepares for stacks of the processes that are there.
func watchAll(u *stack.Unwinder, s *trace.Session) {
	for _, l := range s.Libraries() {
		for _, pid := range l.PIDs {
			_ = u.Watch(pid) // one that has gone has no stacks
		}
	}
}

func (o *traceOptions) record(ctx context.Context, a *app, file string, limit int64) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return postern.Errorf(postern.Conflict, "%w", err)
	}
	cfg.Queue = true // a replay may show it
	if cfg.Record, err = trace.NewRecorder(f, limit); err != nil {
		return errors.Join(err, f.Close())
	}
	s, err := trace.Start(cfg)
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(file))
	}
	ready(a.err, s)
	err = s.Run(ctx, recordSink{cfg.Record})
	if errors.Is(err, trace.ErrFull) {
		fmt.Fprintf(a.err, "the recording has reached --max-size\n")
		err = nil
	}
	summary(a.err, s.Summary())
	return errors.Join(err, cfg.Record.Flush(), s.Close(), f.Close())
}

// recordSink shows nothing: the session records by itself.
type recordSink struct{ r *trace.Recorder }

func (recordSink) Event(*event.Event) error { return nil }
func (s recordSink) Idle() error            { return s.r.Flush() }

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
	w, closer, err := o.writer(a, nil)
	if err != nil {
		return err
	}
	sum, err := trace.Replay(f, cfg.Filter, cfg.Tree, &beginner{Writer: w})
	if err == nil {
		err = w.End(sum.Seen, sum.Losses)
	}
	return errors.Join(err, closer())
}

// beginner begins the output at the first event of a recording.
type beginner struct {
	*format.Writer
	begun bool
}

func (b *beginner) Event(e *event.Event) error {
	if !b.begun {
		b.begun = true
		if err := b.Begin(e.Mono, e.Wall); err != nil {
			return err
		}
	}
	return b.Writer.Event(e)
}

// ready says on the error stream that events are seen from now on.
func ready(w io.Writer, s *trace.Session) {
	files, pids := 0, map[int]bool{}
	for _, l := range s.Libraries() {
		if l.Err == nil {
			files++
		}
		for _, pid := range l.PIDs {
			pids[pid] = true
		}
	}
	fmt.Fprintf(w, "ready: watching %d files of libvirt's in %d processes, and in those to come; Ctrl-C ends it\n", files, len(pids))
}

func summary(w io.Writer, sum trace.Summary) {
	fmt.Fprintln(w, sum)
	for _, l := range sum.Losses {
		fmt.Fprintf(w, "  lost %d of %s in %s (%d)\n", l.Lost, l.Probe, l.Comm, l.PID)
	}
}

func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}
