package ca

import (
	"bytes"
	"context"
	"errors"

	"github.com/postern-project/postern"
)

// Revoke revokes a certificate. When it returns, CRL and OCSP say so and guards
// refuse it. It fails with NotFound for an unknown serial and with Conflict for one
// that was revoked before.
//
// A key that others may know (postern.KeyCompromise) is not certified again, and its other
// certificates are revoked with the one.
//
// With an intermediate all certificates that it issued are revoked: clients that
// check leaves alone would still trust them. It signs nothing more than revocation
// lists and the certificates of OCSP signers; other servers follow within a second.
func (a *Authority) Revoke(ctx context.Context, serial string, reason postern.RevocationReason,
	by postern.Actor,
) error {
	if !reason.Valid() {
		return postern.Errorf(postern.Invalid, "%d is not a reason for revocation", int(reason))
	}
	c, err := a.store.Certificate(ctx, serial)
	if err != nil {
		return err
	}
	if c.Profile == ProfileIntermediate {
		return a.revokeIntermediate(ctx, c, reason, by)
	}
	err = a.store.RevokeCertificate(ctx, serial, reason, a.now(), revokedEvent(c, reason, by))
	if reason != postern.KeyCompromise || err != nil && postern.CodeOf(err) != postern.Conflict {
		return err
	}
	return errors.Join(err, a.revokeKey(ctx, c.Key, by))
}

// Revoked is what was revoked, and what follows from it.
type Revoked struct {
	Serial string
	Issuer *Issuer // the CA that issues nothing any more; nil if it was no intermediate
	Next   string  // common name of the CA that issues for its role from now on; "": none does
}

// RevokeAll revokes certificates one after the other, as Revoke does. On an error
// it returns those that were revoked before it, too.
func (a *Authority) RevokeAll(
	ctx context.Context, serials []string, reason postern.RevocationReason, by postern.Actor,
) (done []Revoked, err error) {
	for _, serial := range serials {
		c, err := a.store.Certificate(ctx, serial)
		if err != nil {
			return done, err
		}
		if err := a.Revoke(ctx, serial, reason, by); err != nil {
			return done, err
		}
		r := Revoked{Serial: serial, Issuer: a.Owner(c)}
		if r.Issuer != nil && a.Trusted(r.Issuer.Role) != nil {
			r.Next = a.Chain(r.Issuer.Role)[0].Subject.CommonName
		}
		done = append(done, r)
	}
	return done, nil
}

// ValidOf returns the serial numbers of a person's valid client certificates:
// NotFound if there are none.
func (a *Authority) ValidOf(ctx context.Context, person string) (serials []string, err error) {
	list, err := a.store.Certificates(ctx, Filter{Person: person, Profile: ProfileClient, Valid: a.now()})
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		serials = append(serials, c.Serial)
	}
	if serials == nil {
		return nil, postern.Errorf(postern.NotFound, "%s has no valid client certificate", person)
	}
	return serials, nil
}

// revokeKey revokes what is left of the certificates of a key that others may
// know.
func (a *Authority) revokeKey(ctx context.Context, key string, by postern.Actor) error {
	list, err := a.store.Certificates(ctx, Filter{Key: key, Valid: a.now()})
	if err != nil {
		return err
	}
	for _, c := range list {
		err := a.store.RevokeCertificate(ctx, c.Serial, postern.KeyCompromise, a.now(),
			revokedEvent(c, postern.KeyCompromise, by))
		if err != nil && postern.CodeOf(err) != postern.Conflict {
			return err
		}
	}
	return nil
}

func (a *Authority) revokeIntermediate(ctx context.Context, c Certificate, reason postern.RevocationReason,
	by postern.Actor,
) error {
	i := a.Owner(c)
	if i == nil {
		return postern.Errorf(postern.Internal, "no CA has the certificate %s", c.Serial)
	}
	if !a.HasKey(c.Issuer) {
		return postern.Errorf(postern.Unavailable,
			"the root's key is not on this machine: a list that revokes an intermediate cannot be signed").
			WithHint("restore the root's key, revoke, and remove the key again")
	}
	if err := a.CheckKey(ctx, c.Issuer); err != nil {
		return err
	}
	theirs := reason
	if reason == postern.KeyCompromise {
		theirs = postern.CACompromise // the keys of the leaves are not compromised
	}
	if err := a.store.RevokeIssuer(ctx, i.ID, c.Serial, reason, theirs, a.now(),
		revokedEvent(c, reason, by)); err != nil {
		return err
	}
	return a.Reload(ctx)
}

// Owner returns the CA that a certificate makes one, or nil if it is not an
// intermediate's.
func (a *Authority) Owner(c Certificate) *Issuer {
	for _, i := range a.Issuers() {
		if c.Profile == ProfileIntermediate && bytes.Equal(i.Certificate, c.DER) {
			return &i
		}
	}
	return nil
}

func revokedEvent(c Certificate, reason postern.RevocationReason, by postern.Actor) postern.Event {
	ev := postern.Event{
		Kind:    postern.EventCertRevoked,
		Outcome: postern.OK,
		Person:  c.Person,
		Address: by.Address,
		Object:  c.Serial,
		Reason:  reason.String(),
		Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: c.Serial}},
	}
	if other := by.By(c.Person); other != "" {
		ev.Details = map[string]string{"by": other}
	}
	return ev
}
