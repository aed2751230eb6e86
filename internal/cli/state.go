//go:build !noserver

package cli

import (
	"context"
	"log/slog"
	"regexp"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
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
	cfg.Keys, cfg.Makers = new(pkcs11.Keys), st.Path(state.MakersFile)
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

// hints are the commands that help against errors whose packages do not know
// the command line.
var hints = []errorHint{
	{state.ErrMissing, "make it with: postern init; or name another directory with --state"},
	{state.ErrRestored, "see postern otp restored --help"},
	{state.ErrServed, "postern run --reload makes it load a changed configuration"},
	{state.ErrNotServed, "start it with: postern run"},
	{
		people.ErrNoPortal,
		"start it with postern run, or make the certificate here with postern ca issue --client NAME",
	},
}

// newIntermediateCommand returns the command that makes the next intermediate of a
// role.
func newIntermediateCommand(role ca.Role) string {
	return "postern ca intermediate new " + string(role)
}

// whereToLook returns the command that shows more of what is wrong with this host's server,
// or "".
func (a *app) whereToLook(ctx context.Context, err error) string {
	if noPerson.MatchString(err.Error()) {
		if near := a.nearPerson(ctx, err); near != "" {
			return "did you mean: " + near
		}
		return "postern user list shows all people"
	}
	switch postern.CodeOf(err) {
	case postern.Internal, postern.Unavailable, postern.TooMany:
		return "postern doctor looks for what is wrong on this host"
	case postern.Denied:
		return "postern log list --outcome refused shows why"
	}
	return ""
}

// noPerson matches what the store says of a name that no person has.
var noPerson = regexp.MustCompile(`there is no person "([^"]+)"`)

// nearPerson returns a person whose name is near to the one that an error names.
func (a *app) nearPerson(ctx context.Context, err error) (near string) {
	wrong := noPerson.FindStringSubmatch(err.Error())[1]
	_ = a.withState(ctx, func(st *state.State) error { // without the state there is no better hint
		names, err := st.Store.People().Names(ctx)
		near = terminal.Nearest(wrong, names)
		return err
	})
	return near
}
