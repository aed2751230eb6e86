package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

func newLog(a *app) *cobra.Command {
	return group("log", "The timeline: list, follow, verify, prove",
		newLogList(a), newLogShow(a), newLogFollow(a), newLogVerify(a), newLogProve(a))
}

// logFilter is a timeline filter as flags give it.
type logFilter struct {
	timeline.Filter
	outcome, link, since, until string
}

func (f *logFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Person, "person", "", "only what `NAME` did")
	flags.StringVar(&f.Kind, "kind", "", "only this `KIND`, or kinds that begin with it: cert, cert.issued")
	flags.StringVar(&f.outcome, "outcome", "", "only what had this `OUTCOME`: ok, refused, failed, unknown")
	flags.StringVar(&f.Address, "address", "", "only from this `ADDRESS` or network")
	flags.StringVar(&f.Object, "object", "", "only what was done to `OBJECT`; a * at its end stands for anything")
	flags.StringVar(&f.link, "link", "", "only what has this link, `KIND=ID`: yubikey=vvccccbdefgh, x509=SERIAL")
	flags.StringVar(&f.since, "since", "", "only since `TIME`: 2026-01-02, 2026-01-02T03:04:05Z, or 90m, 12h, 7d ago")
	flags.StringVar(&f.until, "until", "", "only before `TIME`")
}

func (f *logFilter) parse(now time.Time) (_ timeline.Filter, err error) {
	f.Outcome = postern.Outcome(f.outcome)
	if err := checkKind(f.Kind); err != nil {
		return f.Filter, err
	}
	if f.link != "" {
		f.Link.Kind, f.Link.ID, _ = strings.Cut(f.link, "=")
		if f.Link.ID == "" {
			return f.Filter, postern.Errorf(postern.Invalid, "--link %q is not KIND=ID", f.link).WithHint("for example: --link yubikey=vvccccbdefgh")
		}
	}
	if f.Since, err = parseTime(f.since, now); err != nil {
		return f.Filter, err
	}
	if f.Until, err = parseTime(f.until, now); err != nil {
		return f.Filter, err
	}
	if f.Limit < 0 {
		return f.Filter, postern.Errorf(postern.Invalid, "--lines %d is negative", f.Limit).WithHint("0 prints all entries")
	}
	return f.Filter, f.Validate()
}

// checkKind fails for what is neither a kind of event nor the beginning of one.
func checkKind(kind string) error {
	var words []string
	for _, k := range postern.EventKinds {
		for name := k.Name; name != ""; name = wider(name) {
			words = append(words, name)
		}
	}
	if kind == "" || slices.Contains(words, kind) {
		return nil
	}
	err := postern.Errorf(postern.Invalid, "--kind: there is no kind of event %q", kind)
	if near := terminal.Nearest(kind, words); near != "" {
		return err.WithHint("did you mean: %s", near)
	}
	return err.WithHint("man 7 postern-events lists them")
}

// wider returns the kinds that a kind is one of: cert for cert.issued.
func wider(kind string) string {
	return kind[:max(0, strings.LastIndex(kind, "."))]
}

// parseTime reads a point in time, or how long ago it was.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100000 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, terminal.StampLayout, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, postern.Errorf(postern.Invalid, "%q is not a time", s).WithHint("for example: 2026-01-02, 2026-01-02T03:04:05Z, 90m, 12h, 7d")
}

// logListOptions are the flags of log list and log follow.
type logListOptions struct {
	logFilter
	json, columns bool
}

func (o *logListOptions) flags(cmd *cobra.Command, lines int, usage string) {
	o.logFilter.flags(cmd)
	cmd.Flags().IntVarP(&o.Limit, "lines", "n", lines, usage)
	jsonFlag(cmd, &o.json)
	cmd.Flags().BoolVar(&o.columns, "columns", false, "print columns instead of sentences")
	cmd.Flags().Bool("words", true, "print sentences")
	_ = cmd.Flags().MarkHidden("words") // what is the default today once was asked for
	cmd.MarkFlagsMutuallyExclusive("json", "columns")
}

func newLogList(a *app) *cobra.Command {
	var o logListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the timeline",
		Long: `Print the last entries of the timeline that match every flag, oldest first.

Each is a sentence: who, with what, from where, did what. What an entry does not
say itself is taken from the entries that share a session, a process or a
connection with it. With --columns the entry's own fields are printed.`,
		Example: `  postern log list
  postern log list --person alice --since 7d
  postern log list --kind gate --outcome refused --address 192.0.2.0/24 --columns
  postern log list --link yubikey=vvccccbdefgh --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logList(cmd.Context(), &o) },
	}
	o.flags(cmd, 100, "at most so `MANY` entries; 0 means all")
	return cmd
}

func (a *app) logList(ctx context.Context, o *logListOptions) error {
	f, err := o.parse(time.Now())
	if err != nil {
		return err
	}
	f.Last = f.Limit > 0
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	events, err := st.Store.Timeline().Events(ctx, f)
	if err != nil {
		return err
	}
	return a.printEvents(ctx, st.Store.Timeline(), events, o, true)
}

// printEvents prints entries of the timeline; with a header if there are columns.
func (a *app) printEvents(ctx context.Context, src timeline.Source, events []postern.Event, o *logListOptions, header bool) error {
	switch {
	case o.json || len(events) == 0:
		return terminal.List(a.printer(), events, true, "", nil)
	case o.columns:
		t := terminal.Table{Headed: header}
		if header {
			t.Rows = append(t.Rows, strings.Fields("INDEX TIME KIND OUTCOME PERSON ADDRESS WHAT"))
		}
		for _, e := range events {
			t.Rows = append(t.Rows, columns(e))
		}
		return t.Print(a.out, a.screen)
	}
	t := terminal.Table{Wrapped: true}
	for _, e := range events {
		joined, err := timeline.Join(ctx, src, e)
		if err != nil {
			return err
		}
		t.Rows = append(t.Rows, []string{strconv.FormatInt(e.Index, 10), terminal.Stamp(e.Time), timeline.Sentence(e, joined)})
	}
	return t.Print(a.out, a.screen)
}

// columns returns the fields of an entry as log list --columns shows them.
func columns(e postern.Event) []string {
	what := e.Object
	if call := e.Details[timeline.Procedure]; call != "" {
		what = strings.TrimSpace(call + " " + what)
	}
	if e.Reason != "" {
		what = strings.TrimPrefix(what+": "+e.Reason, ": ")
	}
	if e.Count > 1 {
		what += fmt.Sprintf(" (%d times)", e.Count)
	}
	if e.Took > 0 {
		what += " (" + timeline.Round(e.Took) + ")"
	}
	return []string{strconv.FormatInt(e.Index, 10), terminal.Stamp(e.Time), e.Kind, string(e.Outcome), e.Person, e.Address, what}
}

func newLogShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show INDEX",
		Short: "Show one entry, and the entries that belong to it",
		Long: `Show one entry of the timeline as a sentence, and list the entries that belong to
it: those that share a session, a process or a connection.`,
		Example: "  postern log show 42",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logShow(cmd.Context(), args[0], asJSON) },
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) logShow(ctx context.Context, arg string, asJSON bool) error {
	index, err := parseIndex(arg)
	if err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	found, err := st.Store.Timeline().Events(ctx, timeline.Filter{From: index, Limit: 1})
	if err != nil {
		return err
	}
	if len(found) == 0 || found[0].Index != index {
		return postern.Errorf(postern.NotFound, "the timeline has no entry %d", index)
	}
	joined, err := timeline.Join(ctx, st.Store.Timeline(), found[0])
	if err != nil {
		return err
	}
	if !asJSON {
		fmt.Fprintf(a.out, "%s\n\n", timeline.Sentence(found[0], joined))
	}
	return a.printEvents(ctx, st.Store.Timeline(), joined, &logListOptions{json: asJSON, columns: true}, true)
}

func parseIndex(arg string) (int64, error) {
	index, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || index < 0 {
		return 0, postern.Errorf(postern.Invalid, "%q is not the index of an entry", arg).WithHint("the index is the first column of: postern log list")
	}
	return index, nil
}
