package postern

import (
	"fmt"
	"slices"
	"strings"
)

// RevocationReason is why a certificate is revoked: a CRL reason code (RFC 5280
// section 5.3.1).
type RevocationReason int

// The reasons that a certificate can be revoked for. There is no certificateHold: a
// person who is to be refused for some time is suspended.
const (
	Unspecified          RevocationReason = 0
	KeyCompromise        RevocationReason = 1
	CACompromise         RevocationReason = 2
	AffiliationChanged   RevocationReason = 3
	Superseded           RevocationReason = 4
	CessationOfOperation RevocationReason = 5
	PrivilegeWithdrawn   RevocationReason = 9
)

var revocationReasons = map[RevocationReason]string{
	Unspecified:          "unspecified",
	KeyCompromise:        "keyCompromise",
	CACompromise:         "cACompromise",
	AffiliationChanged:   "affiliationChanged",
	Superseded:           "superseded",
	CessationOfOperation: "cessationOfOperation",
	PrivilegeWithdrawn:   "privilegeWithdrawn",
}

// String returns the reason's name in the RFC.
func (r RevocationReason) String() string {
	if s, ok := revocationReasons[r]; ok {
		return s
	}
	return fmt.Sprintf("reason %d", int(r))
}

// Valid reports whether certificates are revoked for that reason.
func (r RevocationReason) Valid() bool { return revocationReasons[r] != "" }

// MarshalText writes the reason's name.
func (r RevocationReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// RevocationReasonNames returns the names that ParseRevocationReason knows, sorted.
func RevocationReasonNames() []string {
	var list []string
	for _, s := range revocationReasons {
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

// ParseRevocationReason reads a reason's name, without regard to case and hyphens.
func ParseRevocationReason(s string) (RevocationReason, error) {
	for r, name := range revocationReasons {
		if strings.EqualFold(strings.ReplaceAll(s, "-", ""), name) {
			return r, nil
		}
	}
	return 0, Errorf(Invalid, "%q is not a reason for revocation", s).
		WithHint("one of %s", strings.Join(RevocationReasonNames(), ", "))
}
