package cli

import (
	"context"
	"log/slog"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
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

// stateDir returns the state directory that --state and the environment name.
func (a *app) stateDir() (string, error) { return state.Dir(a.state) }

// withDir names the state directory, whether it is there or not.
func (a *app) withDir(_ context.Context, do func(dir string) error) error {
	dir, err := a.stateDir()
	if err != nil {
		return err
	}
	return do(dir)
}

// withState opens the state directory, which must have been made by init or run.
func (a *app) withState(ctx context.Context, do func(*state.State) error) error {
	return a.withDir(ctx, func(dir string) error {
		st, err := state.Open(ctx, dir)
		if err != nil {
			return err
		}
		defer st.Close()
		return do(st)
	})
}

// withCA opens the certificate authority.
func (a *app) withCA(ctx context.Context, do func(*ca.Authority) error) error {
	return a.withState(ctx, func(st *state.State) error { return openCA(ctx, st, ca.Config{}, do) })
}

// openCA opens the certificate authority of a state.
func openCA(ctx context.Context, st *state.State, cfg ca.Config, do func(*ca.Authority) error) error {
	cfg.Keys = new(pkcs11.Keys)
	authority, err := ca.Open(ctx, cfg, st.Store.CA())
	if err != nil {
		return err
	}
	return do(authority)
}

// withPeople opens the people.
func (a *app) withPeople(ctx context.Context, do func(people.Directory) error) error {
	return a.withState(ctx, func(st *state.State) error {
		return openCA(ctx, st, ca.Config{}, func(authority *ca.Authority) error {
			return do(people.Directory{DB: st.Store, Authority: authority})
		})
	})
}

// withOTP opens the one-time passwords.
func (a *app) withOTP(ctx context.Context, do func(*store.OTP) error) error {
	return a.withState(ctx, func(st *state.State) error { return do(st.Store.OTP()) })
}

// withLog opens the timeline.
func (a *app) withLog(ctx context.Context, do func(store.Timeline) error) error {
	return a.withState(ctx, func(st *state.State) error { return do(st.Store.Timeline()) })
}

// withOneTime opens what checks one-time passwords in a server.
func (a *app) withOneTime(ctx context.Context, do func(*server.OneTime) error) error {
	return a.withState(ctx, func(st *state.State) error {
		one, err := server.NewOneTime(st, server.Mappings, a.log(logFlags{level: slog.LevelWarn}))
		if err != nil {
			return err
		}
		defer one.Close()
		return do(one)
	})
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
