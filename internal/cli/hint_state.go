//go:build !noserver

package cli

import (
	"context"
	"regexp"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
)

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
		people, err := st.Store.People().All(ctx)
		names := make([]string, len(people))
		for i, p := range people {
			names[i] = p.Name
		}
		near = terminal.Nearest(wrong, names)
		return err
	})
	return near
}
