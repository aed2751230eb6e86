package ca_test

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"golang.org/x/crypto/ssh"
)

// TestTheNextSSHCASignsWhenHostsKnowIt holds that it is made known at once, signs after
// the overlap, and that what the one before signed stays valid.
func TestTheNextSSHCASignsWhenHostsKnowIt(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	a, db := newAuthority(t, ca.Config{Now: clock, SSHAlgorithm: ca.Ed25519})
	must(t, a.SetPolicies(t.Context(), []ca.Policy{{Profile: ca.ProfileSSHUser, Validity: 90 * day}}))
	signed := func(by *ca.Authority) *ca.SSHIssued {
		t.Helper()
		c, err := by.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: sshKey(t)})
		must(t, err)
		return c
	}
	hosts := trustedBy(t, a) // of the day before
	old := signed(a)
	next, signs, err := a.NewSSHCA(t.Context(), ca.SSHUser)
	must(t, err)
	if next.ID != "ssh-user-2" || next.Key != nil || !signs.Equal(next.Created.Add(ca.SSHOverlap)) {
		t.Errorf("made %+v, which signs from %v on", next, signs)
	}
	other, err := ca.Open(t.Context(), ca.Config{Now: clock}, db.CA()) // another process
	must(t, err)
	for _, by := range []*ca.Authority{a, other} {
		c := signed(by)
		accepted(t, hosts, c, now, true)
		accepted(t, trustedBy(t, by), c, now, true)
	}
	now = signs
	fresh := trustedBy(t, other)
	for _, by := range []*ca.Authority{a, other} {
		c := signed(by)
		if c.Issuer != "ssh-user-2" || c.Cert.SignatureKey.Type() != ssh.KeyAlgoED25519 {
			t.Errorf("after the overlap %s signs, with a key of type %s", c.Issuer, c.Cert.SignatureKey.Type())
		}
		accepted(t, fresh, c, now, true)
		accepted(t, hosts, c, now, false)
	}
	accepted(t, fresh, old, now, true)
	host, err := a.SignSSHHost(t.Context(), ca.SSHHostRequest{Names: []string{"host.example.com"}, Key: sshKey(t)})
	must(t, err)
	if host.Issuer != string(ca.SSHHost) {
		t.Errorf("hosts' certificates are signed by %s", host.Issuer)
	}
	_, _, err = a.NewSSHCA(t.Context(), ca.Server)
	wantCode(t, err, postern.Invalid, "SSH CA")
}

// trustedBy returns the keys in the file for TrustedUserCAKeys.
func trustedBy(t *testing.T, a *ca.Authority) map[string]bool {
	t.Helper()
	file, err := a.TrustedUserCAs()
	must(t, err)
	keys := map[string]bool{}
	for line := range strings.Lines(string(file)) {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		must(t, err)
		keys[string(key.Marshal())] = true
	}
	return keys
}

// accepted fails unless a host that trusts these keys accepts the certificate, or refuses
// it.
func accepted(t *testing.T, trusted map[string]bool, c *ca.SSHIssued, now time.Time, want bool) {
	t.Helper()
	checker := ssh.CertChecker{
		IsUserAuthority: func(key ssh.PublicKey) bool { return trusted[string(key.Marshal())] },
		Clock:           func() time.Time { return now },
	}
	err := checker.CheckCert("dan", c.Cert)
	if got := err == nil && trusted[string(c.Cert.SignatureKey.Marshal())]; got != want {
		t.Errorf("a certificate of %s is accepted: %v (%v), want %v", c.Issuer, got, err, want)
	}
}
