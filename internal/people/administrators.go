package people

import (
	"context"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
)

// AdminGroup is the group of the administrators, unless the configuration names
// others.
const AdminGroup = "admin"

// Pages changes people on behalf of the administrators' pages.
type Pages struct {
	store.Portal
	Admins []string // the groups of administrators
}

// ChangePerson is [store.Portal.ChangePerson], but fails with Denied
// (portal.ErrLastAdministrator) if no administrator would be left.
func (p Pages) ChangePerson(ctx context.Context, by postern.Actor, name string, change func(*postern.Person),
	e postern.Event, mail func(postern.Person, string) *portal.Message,
) (string, error) {
	return p.Portal.ChangePerson(ctx, by, name, change, keepAdministrator(p.Admins), e, mail)
}

// keepAdministrator returns a check that refuses a change by which the last
// active member of the groups leaves them.
func keepAdministrator(groups []string) func(context.Context, *store.Tx, postern.Person, postern.Person) error {
	administers := func(p postern.Person) bool {
		return p.Active() && slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(p.Groups, g) })
	}
	return func(ctx context.Context, tx *store.Tx, old, next postern.Person) error {
		if !administers(old) || administers(next) {
			return nil
		}
		all, err := tx.People(ctx)
		if err != nil || slices.ContainsFunc(all, administers) {
			return err
		}
		return postern.Errorf(postern.Denied, "%s: %w", old.Name, portal.ErrLastAdministrator).
			WithHint("add another person to the group %s first", groups[0])
	}
}
