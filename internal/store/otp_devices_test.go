package store_test

import (
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store/storetest"
)

// TestADisabledFactorIsOne: a person whose only key was disabled still has a second
// factor. Otherwise sshd would log them in without one where it asks only people who
// have one.
func TestADisabledFactorIsOne(t *testing.T) {
	db := storetest.Open(t)
	keys := db.OTP()
	for _, name := range []string{"dan", "eve"} {
		must(t, db.People().AddPerson(t.Context(), postern.Person{Name: name}))
	}
	must(t, db.People().PutCredential(t.Context(), postern.Credential{
		Kind: postern.YubiKey, ID: "vvccccbdefgh", Person: "dan",
	}))
	for _, status := range []postern.CredentialStatus{
		postern.CredentialActive, postern.CredentialDisabled, postern.CredentialRevoked,
	} {
		must(t, db.People().SetCredentialStatus(t.Context(), postern.YubiKey, "vvccccbdefgh", status))
		if n, err := keys.Factors(t.Context(), "dan"); err != nil || n != 1 {
			t.Errorf("%s: %d factors, %v", status, n, err)
		}
	}
	if n, err := keys.Factors(t.Context(), "eve"); err != nil || n != 0 {
		t.Errorf("eve: %d factors, %v", n, err)
	}
}
