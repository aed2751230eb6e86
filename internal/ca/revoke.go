package ca

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// Reason is a CRL reason code (RFC 5280 section 5.3.1).
type Reason int

// The reasons that a certificate can be revoked for. There is no certificateHold: a
// person who is to be refused for some time is suspended.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	CACompromise         Reason = 2
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	PrivilegeWithdrawn   Reason = 9
)

var reasons = map[Reason]string{
	Unspecified:          "unspecified",
	KeyCompromise:        "keyCompromise",
	CACompromise:         "cACompromise",
	AffiliationChanged:   "affiliationChanged",
	Superseded:           "superseded",
	CessationOfOperation: "cessationOfOperation",
	PrivilegeWithdrawn:   "privilegeWithdrawn",
}

// String returns the reason's name in the RFC.
func (r Reason) String() string {
	if s, ok := reasons[r]; ok {
		return s
	}
	return fmt.Sprintf("reason %d", int(r))
}

// Valid reports whether certificates are revoked for that reason.
func (r Reason) Valid() bool { return reasons[r] != "" }

// MarshalText writes the reason's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// ReasonNames returns the names that ParseReason knows, sorted.
func ReasonNames() []string {
	var list []string
	for _, s := range reasons {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// ParseReason reads a reason's name, without regard to case and hyphens.
func ParseReason(s string) (Reason, error) {
	for r, name := range reasons {
		if strings.EqualFold(strings.ReplaceAll(s, "-", ""), name) {
			return r, nil
		}
	}
	return 0, postern.Errorf(postern.Invalid, "%q is not a reason for revocation", s).WithHint("one of %s", strings.Join(ReasonNames(), ", "))
}

// Revoke revokes a certificate. When it returns, CRL and OCSP say so and guards
// refuse it. It fails with NotFound for an unknown serial and with Conflict for one
// that was revoked before.
//
// A key that others may know (KeyCompromise) is not certified again, and its other
// certificates are revoked with the one.
//
// With an intermediate all certificates that it issued are revoked: clients that
// check leaves alone would still trust them. It signs nothing more than revocation
// lists and the certificates of OCSP signers; other servers follow within a second.
func (a *Authority) Revoke(ctx context.Context, serial string, reason Reason, by postern.Actor) error {
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
	if reason != KeyCompromise || err != nil && postern.CodeOf(err) != postern.Conflict {
		return err
	}
	return errors.Join(err, a.revokeKey(ctx, c.Key, by))
}

// revokeKey revokes what is left of the certificates of a key that others may
// know.
func (a *Authority) revokeKey(ctx context.Context, key string, by postern.Actor) error {
	list, err := a.store.Certificates(ctx, Filter{Key: key, Valid: a.now()})
	if err != nil {
		return err
	}
	for _, c := range list {
		err := a.store.RevokeCertificate(ctx, c.Serial, KeyCompromise, a.now(), revokedEvent(c, KeyCompromise, by))
		if err != nil && postern.CodeOf(err) != postern.Conflict {
			return err
		}
	}
	return nil
}

func (a *Authority) revokeIntermediate(ctx context.Context, c Certificate, reason Reason, by postern.Actor) error {
	i := a.Owner(c)
	if i == nil {
		return postern.Errorf(postern.Internal, "no CA has the certificate %s", c.Serial)
	}
	if !a.HasKey(string(Root)) {
		return postern.Errorf(postern.Unavailable, "the root's key is not on this machine: a list that revokes an intermediate cannot be signed").
			WithHint("restore the root's key, revoke, and remove the key again")
	}
	if err := a.CheckKey(ctx, string(Root)); err != nil {
		return err
	}
	theirs := reason
	if reason == KeyCompromise {
		theirs = CACompromise // the keys of the leaves are not compromised
	}
	if err := a.store.RevokeIssuer(ctx, i.ID, c.Serial, reason, theirs, a.now(), revokedEvent(c, reason, by)); err != nil {
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

func revokedEvent(c Certificate, reason Reason, by postern.Actor) postern.Event {
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
