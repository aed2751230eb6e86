//go:build !noserver

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
	return a.withArchive(ctx, func(st *state.State) error { return do(st.Store.Timeline()) })
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
