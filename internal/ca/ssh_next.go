package ca

import (
	"context"
	"crypto"
	"time"

	"github.com/postern-project/postern"
)

// SSHOverlap is how long the next SSH CA of a role is made known before it signs. Hosts
// and clients fetch the keys that they trust in that time. An SSH CA has no end: those
// before it are trusted until they are retired.
const SSHOverlap = 30 * day

// NewCA makes the next intermediate or SSH CA of a role, which signs from the time that
// is returned on: [Authority.NewIntermediate], [Authority.NewSSHCA].
func (a *Authority) NewCA(
	ctx context.Context, role Role, rootKey crypto.Signer,
) (i Issuer, signs time.Time, err error) {
	if role == SSHUser || role == SSHHost {
		return a.NewSSHCA(ctx, role)
	}
	i, err = a.NewIntermediate(ctx, role, rootKey)
	return i, i.Created, err
}

// NewSSHCA makes the next CA of a role, SSHUser or SSHHost. It is among those that
// [Authority.TrustedUserCAs] and [Authority.KnownHosts] write from now on, and signs
// after SSHOverlap, which is the time that is returned.
func (a *Authority) NewSSHCA(ctx context.Context, role Role) (Issuer, time.Time, error) {
	if role != SSHUser && role != SSHHost {
		err := postern.Errorf(postern.Invalid, "an SSH CA is for %q or %q, not %q", SSHUser, SSHHost, role)
		return Issuer{}, time.Time{}, err
	}
	if err := a.Reload(ctx); err != nil {
		return Issuer{}, time.Time{}, err
	}
	alg := P256
	for _, i := range a.list() {
		if i.Role == role && algorithmOf(i.pub).valid() {
			alg = algorithmOf(i.pub)
		}
	}
	iss, err := a.newKey(ctx, role, a.nextID(role), alg)
	if err != nil {
		return Issuer{}, time.Time{}, err
	}
	if err := a.store.AddIssuers(ctx, []Issuer{iss.Issuer}, nil, createdEvent(iss.Issuer)); err != nil {
		return Issuer{}, time.Time{}, err
	}
	pub := iss.Issuer
	pub.Key = nil
	return pub, iss.Created.Add(SSHOverlap), a.Reload(ctx)
}

// waits reports whether an issuer is the next SSH CA of its role, and does not sign yet.
func (i *issuer) waits(now time.Time) bool {
	return i.cert == nil && i.ID != string(i.Role) && now.Before(i.Created.Add(SSHOverlap))
}
