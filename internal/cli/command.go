package cli

import (
	"context"
	"log/slog"

	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// opener opens what a command works on, does something with it, and closes it.
type opener[S any] func(ctx context.Context, do func(S) error) error

// on returns what a command runs that works on what is opened.
func on[S any](open opener[S], do func(context.Context, S, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return open(cmd.Context(), func(s S) error { return do(cmd.Context(), s, args) })
	}
}

// command returns a command that works on what is opened.
func command[S any](use, short string, open opener[S], do func(context.Context, S, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, RunE: on(open, do)}
}

// withNothing is for commands that open nothing.
func withNothing(_ context.Context, do func(struct{}) error) error { return do(struct{}{}) }

// plain returns a command that opens nothing, or opens it by itself.
func plain(use, short string, do func(context.Context, []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		return do(cmd.Context(), args)
	}}
}

// stateDir returns the state directory that --state and the environment name.
func (a *app) stateDir() (string, error) { return system.StateDir(a.state) }

// withDir names the state directory, whether it is there or not.
func (a *app) withDir(_ context.Context, do func(dir string) error) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	return do(dir)
}

// listCommand returns a command that prints what get returns of what is opened: as rows
// below a header, or as JSON.
func listCommand[S, T any](
	a *app, use, short string, open opener[S], header string,
	get func(context.Context, S, []string) ([]T, error), row func(T) []string,
) *cobra.Command {
	var asJSON *bool
	cmd := command(use, short, open, func(ctx context.Context, s S, args []string) error {
		list, err := get(ctx, s, args)
		if err != nil {
			return err
		}
		return terminal.List(a.printer(), list, *asJSON, header, row)
	})
	asJSON = jsonFlag(cmd)
	return cmd
}

// showCommand returns a command that prints the one thing that get returns of what is
// opened: as fields, or as JSON.
func showCommand[S, T any](
	a *app, use, short string, open opener[S],
	get func(context.Context, S, []string) (T, error), fields func(T) []terminal.Field,
) *cobra.Command {
	var asJSON *bool
	cmd := command(use, short, open, func(ctx context.Context, s S, args []string) error {
		v, err := get(ctx, s, args)
		if err != nil {
			return err
		}
		return a.printer().Fields(v, *asJSON, fields(v)...)
	})
	asJSON = jsonFlag(cmd)
	return cmd
}

// fileCommand returns a command that writes what get returns of what is opened to where
// --out says.
func fileCommand[S any](
	a *app, use, short string, open opener[S], get func(context.Context, S, []string) ([]byte, error),
) *cobra.Command {
	var out string
	cmd := command(use, short, open, func(ctx context.Context, s S, args []string) error {
		data, err := get(ctx, s, args)
		if err != nil {
			return err
		}
		return a.print(out, data)
	})
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE`, replaced as a whole; - is standard output, the default")
	return cmd
}

// jsonFlag adds --json, which every command that reads something has.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON, one object a line")
}

// logFlags say what is logged, and how.
type logFlags struct {
	level         slog.Level
	verbose, json bool
}

// logFlagsOf adds the flags of what is logged to a command.
func logFlagsOf(cmd *cobra.Command) *logFlags {
	o, f := new(logFlags), cmd.Flags()
	f.TextVar(&o.level, "log-level", slog.LevelWarn, "log lines of this `LEVEL` and above: debug, info, warn or error")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what goes well, too: --log-level info")
	f.BoolVar(&o.json, "log-json", false, "log JSON, one object a line")
	return o
}

// log returns a logger on standard error.
func (a *app) log(o logFlags) *slog.Logger {
	if o.verbose {
		o.level = min(o.level, slog.LevelInfo)
	}
	with := &slog.HandlerOptions{Level: o.level}
	if o.json {
		return slog.New(slog.NewJSONHandler(a.err, with))
	}
	return slog.New(slog.NewTextHandler(a.err, with))
}
