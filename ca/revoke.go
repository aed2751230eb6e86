package ca

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// Reason is a CRL reason code (RFC 5280 section 5.3.1).
type Reason int

// The reasons that a certificate can be revoked for. There is no hold: a
// suspended person is the gate's matter.
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

// Revoke revokes a certificate. CRL, OCSP and the gate know it when this
// returns. It fails with NotFound for an unknown serial and with Conflict for one
// that was revoked before.
func (a *Authority) Revoke(ctx context.Context, serial string, reason Reason, by Origin) error {
	if !reason.Valid() {
		return postern.Errorf(postern.Invalid, "%d is not a reason for revocation", int(reason))
	}
	c, err := a.store.Certificate(ctx, serial)
	if err != nil {
		return err
	}
	if c.Issuer == string(Root) && !a.HasKey(c.Issuer) {
		return postern.Errorf(postern.Unavailable, "the root's key is not on this machine: a list that revokes an intermediate cannot be signed").
			WithHint("postern ca root restore-key, revoke, and remove it again")
	}
	ev := postern.Event{
		Kind:    postern.EventCertRevoked,
		Outcome: postern.OK,
		Person:  c.Person,
		Address: by.Address,
		Object:  serial,
		Reason:  reason.String(),
		Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: serial}},
	}
	if by.Person != "" && by.Person != c.Person {
		ev.Details = map[string]string{"by": by.Person}
	}
	return a.store.RevokeCertificate(ctx, serial, reason, a.now(), ev)
}
