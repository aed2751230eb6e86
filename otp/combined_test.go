package otp_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// TestCodeBehindAPassword types codes of keys with public IDs of every length
// behind passwords that consist of a key's own letters, too.
func TestCodeBehindAPassword(t *testing.T) {
	h := newRig(t, store.Config{}, otp.Config{})
	h.people(t, "alice", "bob")
	check, _ := h.checker(t, otp.CheckerConfig{}, nil)
	as := func(user, typed string, password bool) (otp.Proof, error) {
		return check.Check(t.Context(), otp.Attempt{User: user, Code: typed, Service: "sshd", Password: password})
	}
	for letters := 1; letters <= 16; letters++ {
		t.Run(fmt.Sprintf("ID of %d", letters), func(t *testing.T) {
			tok := otp.NewSoftToken()
			tok.PublicID = "vcbdefghijklnrtu"[letters-1:] + strings.Repeat("k", letters-1)
			tok.PublicID = tok.PublicID[:letters]
			must(t, h.otp.AddKeys(t.Context(), postern.Actor{},
				[]*otp.Key{{PublicID: tok.PublicID, Secret: &tok.Secret, Person: "alice", Last: otp.Never}}, false))
			for _, password := range []string{
				"", "s3cret", "cbdefghijklnrtuv", "with blank ", "ünï",
				strings.Repeat("c", 60),
			} {
				for name, typed := range map[string]func(string) string{
					"as it is":  func(s string) string { return s },
					"Dvorak":    dvorak,
					"capitals":  strings.ToUpper,
					"blank":     func(s string) string { return s + " \t" },
					"both ends": func(s string) string { return dvorak(s) + "\r\n" },
				} {
					code := typed(touch(t, tok))
					proof, err := as("alice", password+code, true)
					if err != nil || proof.Password != len(password) || proof.Credential.ID != tok.PublicID {
						t.Errorf("%s behind %q: %+v, %v", name, password, proof, err)
					}
					if _, err := as("alice", password+code, true); postern.CodeOf(err) != postern.Denied {
						t.Errorf("%s behind %q again: %v", name, password, err)
					}
				}
			}
			if _, err := as("bob", "s3cret"+touch(t, tok), true); postern.CodeOf(err) == postern.Internal ||
				err == nil {
				t.Errorf("alice's key proves bob: %v", err)
			}
			if _, err := as("alice", "s3cret"+touch(t, tok), false); err == nil {
				t.Error("a password is skipped where none may be")
			}
		})
	}
	for _, typed := range []string{
		"", " ", "s3cret", strings.Repeat("c", 32), "s3cret" + strings.Repeat("c", 32),
		strings.Repeat("c", 255),
	} {
		if proof, err := as("alice", typed, true); err == nil {
			t.Errorf("%q: %+v", typed, proof)
		}
	}
}
