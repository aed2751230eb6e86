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
)

// stateDir returns the state directory that --state and the environment name.
func (a *app) stateDir() (string, error) { return state.Dir(a.state) }

// open opens the state directory, which must have been made by init or run.
func (a *app) open(ctx context.Context) (*state.State, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	return state.Open(ctx, dir)
}

// create makes what is missing of the state directory, and opens it.
func (a *app) create(ctx context.Context) (*state.State, error) {
	dir, err := a.stateDir()
	if err != nil {
		return nil, err
	}
	return state.Create(ctx, dir)
}

// withState opens the state and does something with it.
func (a *app) withState(ctx context.Context, f func(*state.State) error) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	return f(st)
}

// withCA does something with the certificate authority.
func (a *app) withCA(ctx context.Context, f func(*state.State, *ca.Authority) error) error {
	return a.withCAConfig(ctx, ca.Config{}, f)
}

func (a *app) withCAConfig(ctx context.Context, cfg ca.Config, f func(*state.State, *ca.Authority) error) error {
	cfg.Keys = new(pkcs11.Keys)
	return a.withState(ctx, func(st *state.State) error {
		authority, err := ca.Open(ctx, cfg, st.Store.CA())
		if err != nil {
			return err
		}
		return f(st, authority)
	})
}

// withPeople does something with the people.
func (a *app) withPeople(ctx context.Context, f func(people.Directory) error) error {
	return a.withCA(ctx, func(st *state.State, authority *ca.Authority) error {
		return f(people.Directory{DB: st.Store, Authority: authority})
	})
}

// withOTP does something with the one-time passwords.
func (a *app) withOTP(ctx context.Context, f func(*store.OTP) error) error {
	return a.withState(ctx, func(st *state.State) error { return f(st.Store.OTP()) })
}

// withOneTime does something with what checks one-time passwords in a server.
func (a *app) withOneTime(ctx context.Context, f func(*server.OneTime) error) error {
	return a.withState(ctx, func(st *state.State) error {
		one, err := server.NewOneTime(st, server.Mappings, a.quietLog())
		if err != nil {
			return err
		}
		defer one.Close()
		return f(one)
	})
}

// quietLog returns a logger that prints warnings for people, on standard error.
func (a *app) quietLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
