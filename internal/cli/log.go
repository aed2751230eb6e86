//go:build !noserver

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/archive"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/export"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

// logCommands returns the commands of log that read a server's own timeline.
func logCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newLogList(a), newLogShow(a), newLogFollow(a), newLogExport(a), newLogProve(a), newLogKey(a), newLogArchive(a),
	}
}

// logOptions are the flags of log list and log follow.
type logOptions struct {
	filter  timeline.Filter
	json    *bool
	columns bool
	headed  bool // the header was printed
}

// newLogQuery makes a command that does something with the entries that match the flags.
func newLogQuery(a *app, use, short string, lines int, usage string,
	do func(context.Context, store.Timeline, *logOptions) error,
) *cobra.Command {
	cmd, o := &cobra.Command{Use: use, Short: short}, logOptions{}
	o.flags(cmd, lines, usage)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.filter.Validate(); err != nil {
			return err
		}
		return a.withLog(cmd.Context(), func(log store.Timeline) error { return do(cmd.Context(), log, &o) })
	}
	return cmd
}

func (o *logOptions) flags(cmd *cobra.Command, lines int, usage string) {
	f := cmd.Flags()
	f.StringVar(&o.filter.Person, "person", "", "only what `NAME` did")
	f.Func("kind", "only this `KIND`, or kinds that begin with it: cert, cert.issued", o.kind)
	f.StringVar((*string)(&o.filter.Outcome), "outcome", "",
		"only what had this `OUTCOME`: ok, refused, failed, unknown")
	f.StringVar(&o.filter.Address, "address", "", "only from this `ADDRESS` or network")
	f.StringVar(&o.filter.Object, "object", "", "only what was done to `OBJECT`; a * at its end stands for anything")
	f.StringVar(&o.filter.Host, "host", "", "only what this `HOST` saw, other than the server")
	f.Func("link", "only what has this link, `KIND=ID`: yubikey=vvccccbdefgh, x509=SERIAL",
		func(text string) (err error) {
			o.filter.Link, err = timeline.ParseLink(text)
			return err
		})
	f.Func("domain", "only what was done to the virtual machine with this `NAME` or UUID", func(name string) error {
		o.filter.OnDomain(name)
		return nil
	})
	f.Var((*terminal.Moment)(&o.filter.Since), "since",
		"only since `TIME`: 2026-01-02, 2026-01-02T03:04:05Z, or 90m, 12h, 7d ago")
	f.Var((*terminal.Moment)(&o.filter.Until), "until", "only before `TIME`")
	f.IntVarP(&o.filter.Limit, "lines", "n", lines, usage)
	o.json = jsonFlag(cmd)
	f.BoolVar(&o.columns, "columns", false, "print columns instead of sentences")
	f.Bool("words", true, "print sentences")
	_ = f.MarkHidden("words") // what is the default today once was asked for
	cmd.MarkFlagsMutuallyExclusive("json", "columns")
	for _, flag := range []string{"link", "kind", "object"} {
		cmd.MarkFlagsMutuallyExclusive("domain", flag)
	}
}

// kind sets the kind, which must be one of those that there are.
func (o *logOptions) kind(kind string) error {
	o.filter.Kind = kind
	return terminal.Known("kind of event", kind, timeline.Kinds(), "man 7 postern-events lists them")
}

func newLogList(a *app) *cobra.Command {
	return newLogQuery(a, "list", "Print the timeline", 100, "at most so `MANY` entries; 0 means all",
		func(ctx context.Context, log store.Timeline, o *logOptions) error {
			if o.filter.Limit == 0 {
				a.sayElsewhere(ctx, log, o)
				return timeline.Each(ctx, log, o.filter, func(events []postern.Event) error {
					return a.printEvents(ctx, log.Recent(), events, o)
				})
			}
			o.filter.Last = true
			events, err := log.Events(ctx, o.filter)
			if err != nil {
				return err
			}
			if len(events) < o.filter.Limit {
				a.sayElsewhere(ctx, log, o)
			}
			return a.printEvents(ctx, log.Recent(), events, o) // an archive is not searched for each
		})
}

// sayElsewhere says that a list has not what is in an archive which is not here.
func (a *app) sayElsewhere(ctx context.Context, log store.Timeline, o *logOptions) {
	if err := log.Elsewhere(ctx, o.filter.From); err != nil {
		fmt.Fprintf(a.err, "postern: %v\n", err)
	}
}

func newLogFollow(a *app) *cobra.Command {
	return newLogQuery(a, "follow", "Print entries of the timeline as they are written",
		10, "begin with at most so `MANY` entries that are there already",
		func(ctx context.Context, log store.Timeline, o *logOptions) error {
			return timeline.Follower{
				Source: log, Filter: o.filter, Interval: 300 * time.Millisecond,
				Entries:     func(events []postern.Event) error { return a.printEvents(ctx, log, events, o) },
				Unavailable: func(err error) { fmt.Fprintf(a.err, "postern: %v; waiting for it\n", err) },
			}.Follow(ctx)
		})
}

// printEvents prints entries of the timeline, its first call a header if there are columns.
func (a *app) printEvents(ctx context.Context, src timeline.Source, events []postern.Event, o *logOptions) error {
	if *o.json || len(events) == 0 {
		return terminal.List(a.printer(), events, true, "", nil)
	}
	t := terminal.Table{Headed: o.columns && !o.headed, Wrapped: !o.columns}
	if o.headed = true; t.Headed {
		t.Rows = append(t.Rows, strings.Fields("INDEX TIME KIND OUTCOME PERSON ADDRESS WHAT"))
	}
	for _, e := range events {
		row := []string{strconv.FormatInt(e.Index, 10), terminal.Time(e.Time)}
		if o.columns {
			row = append(row, e.Kind, string(e.Outcome), timeline.Who(e), e.Address, timeline.Summary(e))
			t.Rows = append(t.Rows, row)
			continue
		}
		joined, err := timeline.Join(ctx, src, e)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, append(row, timeline.Sentence(e, joined)))
	}
	return t.Print(a.out, a.screen)
}

func newLogShow(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "show INDEX", Short: "Show one entry, and the entries that belong to it"}
	o := logOptions{json: jsonFlag(cmd), columns: true}
	cmd.RunE = on(a.withLog, func(ctx context.Context, log store.Timeline, args []string) error {
		index, err := parseIndex(args[0])
		if err != nil {
			return err
		}
		e, joined, err := timeline.JoinAt(ctx, log, index)
		if err != nil {
			return err
		}
		if !*o.json {
			fmt.Fprintf(a.out, "%s\n\n", timeline.Sentence(e, joined))
		}
		return a.printEvents(ctx, log, joined, &o)
	})
	return cmd
}

func parseIndex(arg string) (int64, error) {
	index, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || index < 0 {
		return 0, postern.Errorf(postern.Invalid, "%q is not the index of an entry",
			arg).WithHint("the index is the first column of: postern log list")
	}
	return index, nil
}

func newLogKey(a *app) *cobra.Command {
	return group("key", "The timeline's signing key: follow it by another",
		command("show", "Print the timeline's public keys", a.withState,
			func(_ context.Context, st *state.State, _ []string) error {
				return a.done(nil, "%s\n", st.Store.Timeline().LogVerifier())
			}),
		command("new", "Make the signing key that follows, beside the present one", a.withState,
			func(ctx context.Context, st *state.State, _ []string) error {
				public, err := st.NewLogKey(ctx)
				return a.done(err, "%s\n", public)
			}),
		command("retire", "End the use of the older of two signing keys", a.withState,
			func(ctx context.Context, st *state.State, _ []string) error {
				return a.done(st.RetireLogKey(ctx), "one key signs the timeline from now on\n")
			}))
}

func newLogArchive(a *app) *cobra.Command {
	var before, to string
	cmd := &cobra.Command{Use: "archive", Short: "Move old entries of the timeline into files"}
	cmd.Flags().StringVar(&before, "before", "", "move the entries before this `TIME`, or before that index")
	cmd.Flags().StringVar(&to, "to", "", "the `DIRECTORY` of the archive, the same each time")
	required(cmd, "before", "to")
	cmd.RunE = on(a.withLog, func(ctx context.Context, log store.Timeline, _ []string) error {
		n, err := archive.Size(ctx, log, before, func(text string) (at time.Time, err error) {
			err = (*terminal.Moment)(&at).Set(text)
			return at, err
		})
		if err != nil {
			return err
		}
		end := terminal.Working(a.err, "moving entries into "+to)
		size, err := archive.Run(ctx, log, to, n)
		end()
		why := ""
		if size < n {
			why = ", in files of 256; later ones may be waited for by alerts, notifications and witnesses"
		}
		return a.done(err, "the archive has the first %s%s\n", terminal.Counted(size, "entry"), why)
	})
	return cmd
}

// withArchive has the timeline read with what was moved into files, where that is here.
func (a *app) withArchive(ctx context.Context, do func(*state.State) error) error {
	return a.withState(ctx, func(st *state.State) error {
		if err := archive.Use(ctx, st.Store, a.archive); err != nil {
			return err
		}
		return do(st)
	})
}

func newLogExport(a *app) *cobra.Command {
	o := export.Options{Report: func(text string) { fmt.Fprintf(a.err, "postern: %s\n", text) }}
	cmd := &cobra.Command{Use: "export", Short: "Send the timeline's entries to another system"}
	f := cmd.Flags()
	f.StringVar(&o.To, "to", "", "the receiver's `ADDRESS`: https://…, syslog+tls://HOST, file:///PATH, …")
	f.StringVar(&o.Format, "format", "json", "the `FORMAT` of an entry: json, sentence, ecs, ocsf")
	f.StringVar(&o.Cursor, "cursor", "", "keep in `FILE` how far the receiver is")
	f.Int64Var(&o.From, "from", 0, "begin with the entry `INDEX`, where there is no cursor yet")
	f.BoolVar(&o.Follow, "follow", false, "send new entries as they are written, until interrupted")
	f.StringVar(&o.Secret, "secret", "", "of http: sign what is sent with the key in `FILE`")
	f.StringVar(&o.Authorization, "authorization", "", "of http: send that header with the value in `FILE`")
	f.StringVar(&o.TLS.CA, "ca", "", "of syslog+tls: the receiver's CA, PEM `FILE` (default: the system's)")
	f.StringVar(&o.TLS.Certificate, "cert", "", "of syslog+tls: client certificate, PEM `FILE`")
	f.StringVar(&o.TLS.Key, "key", "", "of syslog+tls: its private key, PEM `FILE`")
	f.BoolVar(&o.Unencrypted, "unencrypted", false, "send to another host without TLS: the network may read it")
	f.Var((*terminal.Size)(&o.Rotate), "rotate", "of file: begin another at this `SIZE`, such as 100MiB")
	f.IntVar(&o.Keep, "keep", 0, "of file: keep so `MANY` older ones (default 10)")
	f.StringVar(&o.Metrics, "metrics", "", "serve numbers of the export to Prometheus at `HOST:PORT`")
	required(cmd, "to", "cursor")
	cmd.RunE = on(a.withLog, func(ctx context.Context, log store.Timeline, _ []string) error {
		o.Wake = system.Hangups() // as logrotate sends
		return export.Run(ctx, log, o)
	})
	return cmd
}

func (a *app) logVerify(ctx context.Context, o *logVerifyOptions) error {
	earlier := make([]string, len(o.earlier))
	for i, file := range o.earlier {
		text, err := a.prompt().Read(file)
		if err != nil {
			return err
		}
		earlier[i] = string(text)
	}
	return a.withArchive(ctx, func(st *state.State) error {
		end := terminal.Working(a.err, "checking the timeline")
		report, err := st.VerifyLog(ctx, earlier...)
		end()
		if err != nil {
			return err
		}
		if err := a.printReport(report, *o.json); err != nil {
			return err
		}
		if len(report.Problems) > 0 {
			return postern.Errorf(postern.Internal, "the timeline was changed after it was written").
				WithHint("keep the database as it is, since it is the evidence; go on with a backup that verifies")
		}
		if o.save == "" {
			return nil
		}
		if err := durable.Output(o.save, []byte(report.Checkpoint), 0o644); err != nil {
			return postern.Errorf(postern.Unavailable, "save the checkpoint: %w", err)
		}
		return nil
	})
}

func (a *app) printReport(r timeline.Report, asJSON bool) error {
	if asJSON {
		return terminal.JSON(a.out, r)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(a.out, p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintf(a.out, "ok: %s, all as written\n", terminal.Counted(r.Size, "entry"))
	}
	if r.Missing {
		fmt.Fprintf(a.out, "the first %d are in an archive that is not here: only the hashes over them were checked\n",
			r.Archived)
	}
	for _, w := range r.Witnesses {
		fmt.Fprintln(a.out, w)
	}
	return nil
}

func newLogProve(a *app) *cobra.Command {
	return fileCommand(a, "prove INDEX", "Write a proof that the timeline has an entry", a.withLog,
		func(ctx context.Context, log store.Timeline, args []string) ([]byte, error) {
			index, err := parseIndex(args[0])
			if err != nil {
				return nil, err
			}
			p, err := log.ProveEvent(ctx, index)
			return indented(p, err)
		})
}

// indented writes a value as JSON over several lines.
func indented(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), err
}
