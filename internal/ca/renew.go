package ca

import (
	"context"
	"errors"

	"github.com/postern-project/postern"
)

// renewAt is the part of an intermediate's time that is left when its successor is made:
// a fifth. With the default of ten years that is longer than any certificate lives, so
// that none ends early for its intermediate's sake.
const renewAt = 5

// RenewIntermediates makes the successors of intermediates that end soon, or have ended,
// as [Authority.NewIntermediate] does with the root's key on this machine. It returns
// what it made. Those that were revoked are left to an administrator, and so are those
// that end with the root, which nothing under it outlasts. It fails with Unavailable if
// the root's key is needed and not here. Several servers may call it at once: one makes
// the successor.
func (a *Authority) RenewIntermediates(ctx context.Context) (made []Issuer, err error) {
	for _, role := range []Role{Server, Client} {
		if !a.intermediateIsDue(role) {
			continue
		}
		if failed := a.Reload(ctx); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		if !a.intermediateIsDue(role) { // another server has made it
			continue
		}
		i, failed := a.addIntermediate(ctx, role, nil)
		switch {
		case failed == nil:
			made = append(made, i)
		case postern.CodeOf(failed) == postern.Conflict: // another server was faster
			err = errors.Join(err, a.Reload(ctx))
		default:
			err = errors.Join(err, failed)
		}
	}
	return made, err
}

func (a *Authority) intermediateIsDue(role Role) bool {
	last, root, now := a.newest(role), a.Root(), a.now()
	if last == nil || !last.Revoked.IsZero() || last.root.cert == root && !root.NotAfter.After(last.cert.NotAfter) ||
		!now.Before(root.NotAfter) {
		return false
	}
	life := last.cert.NotAfter.Sub(last.cert.NotBefore)
	return last.cert.NotAfter.Sub(now) < life/renewAt
}

// EndsWithRoot reports whether the role's intermediate that issues lasts as long as the
// root: a successor would not outlast it.
func (a *Authority) EndsWithRoot(role Role) bool {
	last := a.newest(role)
	return last != nil && last.cert != nil && !last.cert.NotAfter.Before(last.root.cert.NotAfter)
}
