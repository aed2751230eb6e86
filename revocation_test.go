package postern_test

import (
	"testing"

	"github.com/postern-project/postern"
)

func TestRevocationReasons(t *testing.T) {
	for _, name := range postern.RevocationReasonNames() {
		r, err := postern.ParseRevocationReason(name)
		if err != nil || r.String() != name || !r.Valid() {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
	if r, err := postern.ParseRevocationReason("key-compromise"); err != nil || r != postern.KeyCompromise {
		t.Errorf("key-compromise: %v, %v", r, err)
	}
	// certificateHold, the unused 7 and removeFromCRL (RFC 5280 section 5.3.1).
	for _, r := range []postern.RevocationReason{6, 7, 8, -1} {
		if r.Valid() {
			t.Errorf("certificates are revoked for %v", r)
		}
	}
	if _, err := postern.ParseRevocationReason("certificateHold"); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("certificateHold: %v", err)
	}
}
