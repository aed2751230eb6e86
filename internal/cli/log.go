//go:build !noserver

package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
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
func newLogQuery(a *app, cmd *cobra.Command, lines int, usage string,
	do func(context.Context, store.Timeline, *logOptions) error,
) *cobra.Command {
	var o logOptions
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
	kinds := timeline.Kinds()
	if slices.Contains(kinds, kind) {
		return nil
	}
	err := postern.Errorf(postern.Invalid, "there is no kind of event %q", kind)
	if near := terminal.Nearest(kind, kinds); near != "" {
		return err.WithHint("did you mean: %s", near)
	}
	return err.WithHint("man 7 postern-events lists them")
}

func newLogList(a *app) *cobra.Command {
	return newLogQuery(a, &cobra.Command{
		Use:   "list",
		Short: "Print the timeline",
	}, 100, "at most so `MANY` entries; 0 means all",
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

// followInterval is how often log follow looks for new entries.
const followInterval = 300 * time.Millisecond

func newLogFollow(a *app) *cobra.Command {
	return newLogQuery(a, &cobra.Command{
		Use:   "follow",
		Short: "Print entries of the timeline as they are written",
	}, 10, "begin with at most so `MANY` entries that are there already",
		func(ctx context.Context, log store.Timeline, o *logOptions) error {
			return timeline.Follower{
				Source: log, Filter: o.filter, Interval: followInterval,
				Entries:     func(events []postern.Event) error { return a.printEvents(ctx, log, events, o) },
				Unavailable: func(err error) { fmt.Fprintf(a.err, "postern: %v; waiting for it\n", err) },
			}.Follow(ctx)
		})
}

// printEvents prints entries of the timeline, at its first call with a header if there
// are columns.
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
			t.Rows = append(t.Rows, append(row, e.Kind, string(e.Outcome), e.Person, e.Address, timeline.Summary(e)))
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
