package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/store"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
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
	flags.StringVar(&f.outcome, "outcome", "", "only what ended so: ok, refused, failed")
	flags.StringVar(&f.Address, "address", "", "only from this `ADDRESS` or network")
	flags.StringVar(&f.Object, "object", "", "only what was done to `OBJECT`; a * at its end stands for anything")
	flags.StringVar(&f.link, "link", "", "only what has this link, `KIND=ID`: yubikey=vvccccbdefgh, x509=SERIAL")
	flags.StringVar(&f.since, "since", "", "only since `TIME`: 2026-01-02, 2026-01-02T03:04:05Z, or 90m, 12h, 7d ago")
	flags.StringVar(&f.until, "until", "", "only before `TIME`")
}

func (f *logFilter) parse(now time.Time) (_ timeline.Filter, err error) {
	f.Outcome = postern.Outcome(f.outcome)
	if f.link != "" {
		f.Link.Kind, f.Link.ID, _ = strings.Cut(f.link, "=")
		if f.Link.ID == "" {
			return f.Filter, postern.Errorf(postern.Invalid, "--link %q is not KIND=ID", f.link)
		}
	}
	if f.Since, err = parseTime(f.since, now); err != nil {
		return f.Filter, err
	}
	if f.Until, err = parseTime(f.until, now); err != nil {
		return f.Filter, err
	}
	if f.Limit < 0 {
		return f.Filter, postern.Errorf(postern.Invalid, "--lines %d is negative", f.Limit)
	}
	return f.Filter, f.Validate()
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
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, postern.Errorf(postern.Invalid, "%q is not a time", s).WithHint("for example: 2026-01-02, 2026-01-02T03:04:05Z, 90m, 12h, 7d")
}

// logListOptions are the flags of log list.
type logListOptions struct {
	logFilter
	json, words bool
}

func newLogList(a *app) *cobra.Command {
	var o logListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the timeline",
		Long: `Print the last lines of the timeline that match every flag, oldest first.

With --words each line is a sentence: who, with what, from where, did what. What
a line does not tell itself is taken from the lines that share a session, a
process or a connection with it.`,
		Example: `  postern log list
  postern log list --person alice --since 7d --words
  postern log list --kind gate --outcome refused --address 192.0.2.0/24
  postern log list --link yubikey=vvccccbdefgh --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logList(cmd.Context(), &o) },
	}
	o.flags(cmd)
	cmd.Flags().IntVarP(&o.Limit, "lines", "n", 100, "at most so `many` lines; 0 means all")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&o.words, "words", false, "print sentences")
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
	events, err := st.Store.Events(ctx, f)
	if err != nil {
		return err
	}
	return a.printEvents(ctx, st.Store, events, o.json, o.words)
}

func (a *app) printEvents(ctx context.Context, src timeline.Source, events []postern.Event, asJSON, words bool) error {
	if asJSON {
		for _, e := range events {
			if err := printJSONLine(a.out, e); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, e := range events {
		if !words {
			fmt.Fprintln(tw, strings.Join(columns(e), "\t"))
			continue
		}
		joined, err := timeline.Join(ctx, src, e)
		if err != nil {
			return err
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\n", e.Index, stamp(e.Time), timeline.Sentence(e, joined))
	}
	return tw.Flush()
}

// printJSONLine prints a value as one line of JSON.
func printJSONLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// stamp returns a time as lists show it.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// columns returns a line of the timeline as a list shows it.
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
	return []string{strconv.FormatInt(e.Index, 10), stamp(e.Time), e.Kind, string(e.Outcome), dash(e.Person), dash(e.Address), dash(what)}
}

// dash stands for what is empty in a list.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func newLogShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show INDEX",
		Short: "Say one line in words, with all that belongs to it",
		Long: `Say one line of the timeline in words, and list the lines that belong to it:
those that share a session, a process or a connection.`,
		Example: "  postern log show 42",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logShow(cmd.Context(), args[0], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the lines as JSON, one a line")
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
	found, err := st.Store.Events(ctx, timeline.Filter{From: index, Limit: 1})
	if err != nil {
		return err
	}
	if len(found) == 0 || found[0].Index != index {
		return postern.Errorf(postern.NotFound, "there is no line %d in the timeline", index)
	}
	joined, err := timeline.Join(ctx, st.Store, found[0])
	if err != nil {
		return err
	}
	if !asJSON {
		fmt.Fprintf(a.out, "%s\n\n", timeline.Sentence(found[0], joined))
	}
	return a.printEvents(ctx, st.Store, joined, asJSON, false)
}

func parseIndex(arg string) (int64, error) {
	index, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || index < 0 {
		return 0, postern.Errorf(postern.Invalid, "%q is not the index of a line", arg).WithHint("the first column of postern log list")
	}
	return index, nil
}

// followInterval is how often log follow looks for new lines.
const followInterval = 300 * time.Millisecond

func newLogFollow(a *app) *cobra.Command {
	var o logListOptions
	cmd := &cobra.Command{
		Use:   "follow",
		Short: "Print lines of the timeline as they are written",
		Long:  "Print the last lines of the timeline that match every flag, and then each new one, until interrupted.",
		Example: `  postern log follow --outcome refused
  postern log follow -n 0 --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logFollow(cmd.Context(), &o) },
	}
	o.flags(cmd)
	cmd.Flags().IntVarP(&o.Limit, "lines", "n", 10, "begin with at most so `many` lines that are there already")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object a line")
	cmd.Flags().BoolVar(&o.words, "words", false, "print sentences")
	return cmd
}

func (a *app) logFollow(ctx context.Context, o *logListOptions) error {
	f, err := o.parse(time.Now())
	if err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	next, err := st.Store.LogSize(ctx)
	if err != nil {
		return err
	}
	if f.Limit > 0 {
		last := f
		last.Last = true
		events, err := st.Store.Events(ctx, last)
		if err != nil {
			return err
		}
		if err := a.printEvents(ctx, st.Store, before(events, next), o.json, o.words); err != nil {
			return err
		}
	}
	f.From, f.Limit = next, 0
	err = a.follow(ctx, st.Store, f, o)
	if errors.Is(err, context.Canceled) {
		return nil // interrupted: that is how it ends
	}
	return err
}

// follow prints new lines until ctx ends. A database that is away is waited
// for.
func (a *app) follow(ctx context.Context, db *store.DB, f timeline.Filter, o *logListOptions) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	away := false
	for {
		next, err := a.printSince(ctx, db, f, o)
		switch {
		case err == nil:
			f.From, away = next, false
		case postern.CodeOf(err) != postern.Unavailable:
			return err
		case !away && ctx.Err() == nil:
			away = true
			fmt.Fprintf(a.err, "postern: %v; waiting for it\n", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// printSince prints the lines from f.From on and returns the index after them.
func (a *app) printSince(ctx context.Context, db *store.DB, f timeline.Filter, o *logListOptions) (int64, error) {
	size, err := db.LogSize(ctx)
	if err != nil || size <= f.From {
		return f.From, err
	}
	events, err := db.Events(ctx, f)
	if err != nil {
		return f.From, err
	}
	return size, a.printEvents(ctx, db, before(events, size), o.json, o.words)
}

// before returns the events whose index is below next: others were written
// meanwhile, and will come.
func before(events []postern.Event, next int64) []postern.Event {
	for len(events) > 0 && events[len(events)-1].Index >= next {
		events = events[:len(events)-1]
	}
	return events
}

// checkpointFile is the file of the state directory that keeps the checkpoint
// of the last log verify that found all well.
const checkpointFile = "log.checkpoint"

// logVerifyOptions are the flags of log verify.
type logVerifyOptions struct {
	earlier          []string
	save, proof, key string
	json             bool
}

func newLogVerify(a *app) *cobra.Command {
	var o logVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nothing in the timeline was changed, dropped or reordered",
		Long: `Check every line of the timeline against the hashes and the signed checkpoint,
and against the checkpoint that the last verify left in the state directory. A
checkpoint that was saved elsewhere with --save and is given with --earlier
finds also a log that was cut or written anew by somebody who has its key.

With --proof and --key it checks one line, as log prove wrote it, and needs
nothing else: no state directory, no network.`,
		Example: `  postern log verify
  postern log verify --save /mnt/elsewhere/checkpoint
  postern log verify --earlier /mnt/elsewhere/checkpoint
  postern log verify --proof line42.json --key log.vkey`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (o.proof == "") != (o.key == "") {
				return postern.Errorf(postern.Invalid, "--proof and --key go together")
			}
			if o.proof != "" {
				return a.logVerifyProof(&o)
			}
			return a.logVerify(cmd.Context(), &o)
		},
	}
	cmd.Flags().StringArrayVar(&o.earlier, "earlier", nil, "compare with the checkpoint in `FILE` too; can be given again")
	cmd.Flags().StringVar(&o.save, "save", "", "write the checkpoint to `FILE` if all is well")
	cmd.Flags().StringVar(&o.proof, "proof", "", "check the proof in `FILE` instead")
	cmd.Flags().StringVar(&o.key, "key", "", "the log's public key, or the `FILE` that holds it (log.vkey)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the report as JSON")
	return cmd
}

func (a *app) logVerify(ctx context.Context, o *logVerifyOptions) error {
	var earlier []string
	for _, file := range o.earlier {
		text, err := os.ReadFile(file)
		if err != nil {
			return postern.Errorf(postern.Invalid, "read the earlier checkpoint: %w", err)
		}
		earlier = append(earlier, string(text))
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	remembered, err := os.ReadFile(st.path(checkpointFile))
	switch {
	case err == nil:
		earlier = append(earlier, string(remembered))
	case !errors.Is(err, fs.ErrNotExist):
		return postern.Errorf(postern.Unavailable, "read the checkpoint of the last verify: %w", err)
	}
	report, err := st.Store.VerifyLog(ctx, earlier...)
	if err != nil {
		return err
	}
	if err := a.printReport(report, o.json); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return postern.Errorf(postern.Internal, "the timeline was changed after it was written")
	}
	if o.save != "" {
		if err := replaceFile(o.save, []byte(report.Checkpoint), 0o644); err != nil {
			return postern.Errorf(postern.Unavailable, "save the checkpoint: %w", err)
		}
	}
	err = replaceFile(st.path(checkpointFile), []byte(report.Checkpoint), 0o644)
	if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
		return postern.Errorf(postern.Unavailable, "remember the checkpoint: %w", err)
	}
	return nil
}

func (a *app) printReport(r timeline.Report, asJSON bool) error {
	if asJSON {
		return printJSONLine(a.out, r)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(a.out, p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintf(a.out, "ok: %d lines, all as they were written\n", r.Size)
	}
	return nil
}

func (a *app) logVerifyProof(o *logVerifyOptions) error {
	key := o.key
	if text, err := os.ReadFile(o.key); err == nil {
		key = strings.TrimSpace(string(text))
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return postern.Errorf(postern.Invalid, "--key is neither a file nor a log's public key")
	}
	text, err := os.ReadFile(o.proof)
	if err != nil {
		return postern.Errorf(postern.NotFound, "read the proof: %w", err)
	}
	p, err := timeline.ParseProof(text)
	if err != nil {
		return err
	}
	e, c, err := p.Check(v)
	if err != nil {
		return err
	}
	if o.json {
		return printJSONLine(a.out, e)
	}
	fmt.Fprintf(a.out, "ok: line %d of %s, of %d lines when it was proved\n%s\n", e.Index, c.Origin, c.Size, p.Line)
	return nil
}

func newLogProve(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "prove INDEX",
		Short: "Write a proof that a line stands in the timeline",
		Long: `Write a proof that a line stands in the timeline, for somebody who has the
log's public key (log.vkey in the state directory) and nothing else. They check
it with log verify --proof FILE --key KEY.`,
		Example: "  postern log prove 42 --output line42.json",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logProve(cmd.Context(), args[0], output) },
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`, not to the terminal")
	return cmd
}

func (a *app) logProve(ctx context.Context, arg, output string) error {
	index, err := parseIndex(arg)
	if err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	p, err := st.Store.ProveEvent(ctx, index)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if output == "" {
		_, err := a.out.Write(text)
		return err
	}
	return replaceFile(output, text, 0o644)
}
