package ca_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

const day = 24 * time.Hour

// configured are what the tests configure.
var configured = []ca.Policy{
	{Profile: ca.ProfileServer, Validity: 30 * day, Max: 90 * day, Keys: []ca.Algorithm{ca.P384, ca.RSA3072}},
	{Profile: ca.ProfileClient, Max: 100 * day},
	{Profile: ca.ProfileSSHUser, Validity: time.Hour, Max: 8 * time.Hour},
	{
		Profile: "shortlived", Text: "for servers that renew often", Validity: 6 * day, Max: 6 * day, SignOnly: true,
		OIDs: []string{"1.3.6.1.4.1.55555.1"},
	},
}

func TestProfilesAreConfigured(t *testing.T) {
	a, db := newAuthority(t, ca.Config{})
	must(t, a.SetPolicies(t.Context(), configured))
	other, err := ca.Open(t.Context(), ca.Config{}, db.CA()) // another process
	must(t, err)
	for _, a := range []*ca.Authority{a, other} {
		server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
		must(t, err)
		lasts(t, server.Leaf, 30*day)
		if server.Leaf.PublicKeyAlgorithm != x509.ECDSA || server.Key == nil {
			t.Errorf("the key made is %v", server.Leaf.PublicKeyAlgorithm)
		}
		client, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
		must(t, err)
		lasts(t, client.Leaf, 100*day) // a year is too long
		short, err := a.IssueServer(t.Context(), ca.ServerRequest{
			Names:   []string{"www.example.com"},
			Profile: "shortlived", Key: publicKey(t, ca.RSA3072),
		})
		must(t, err)
		lasts(t, short.Leaf, 6*day)
		if short.Leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(short.Leaf.Policies) != 1 ||
			short.Profile != ca.ProfileServer {
			t.Errorf("usage %v, policies %v, profile %s", short.Leaf.KeyUsage, short.Leaf.Policies, short.Profile)
		}
		renewed, err := a.Renew(t.Context(), short.Serial, ca.RenewRequest{SameKey: true})
		must(t, err)
		lasts(t, renewed.Leaf, 6*day)
		if renewed.Policy != "shortlived" || len(renewed.Leaf.Policies) != 1 {
			t.Errorf("a certificate of the profile shortlived is renewed as %q, %v", renewed.Policy,
				renewed.Leaf.Policies)
		}
		renewed, err = a.Renew(t.Context(), renewed.Serial, ca.RenewRequest{Profile: ca.ProfileServer})
		must(t, err)
		lasts(t, renewed.Leaf, 30*day)
		ssh, err := a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: sshKey(t)})
		must(t, err)
		if got := time.Until(ssh.ValidBefore); got > time.Hour || got < 59*time.Minute {
			t.Errorf("an SSH certificate lasts %v", got)
		}
	}
	for name, r := range map[string]ca.ServerRequest{
		"longer than the longest": {Period: ca.Period{Validity: 91 * day}},
		"another kind of key":     {Key: publicKey(t, ca.P256)},
	} {
		r.Names = []string{"www.example.com"}
		_, err := a.IssueServer(t.Context(), r)
		if postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []ca.Profile{"other", ca.ProfileClient, ca.ProfileIntermediate, ca.ProfileSSHHost} {
		_, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}, Profile: name})
		wantCode(t, err, postern.NotFound, "profile")
	}
	short, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"a.example.com"}, Profile: "shortlived"})
	must(t, err)
	must(t, a.SetPolicies(t.Context(), nil))
	_, err = a.Renew(t.Context(), short.Serial, ca.RenewRequest{})
	wantCode(t, err, postern.NotFound, `no profile "shortlived"`)
	again, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
	must(t, err)
	lasts(t, again.Leaf, 90*day)
}

func lasts(t *testing.T, cert *x509.Certificate, want time.Duration) {
	t.Helper()
	if got := time.Until(cert.NotAfter); got > want || got < want-time.Minute {
		t.Errorf("%s lasts %v, want %v", cert.Subject, got, want)
	}
}

func TestProfilesThatCannotWork(t *testing.T) {
	a, _ := newAuthority(t, ca.Config{})
	for name, p := range map[string]ca.Policy{
		"no name":                    {},
		"a path":                     {Profile: "../x"},
		"an intermediate":            {Profile: ca.ProfileIntermediate},
		"longer than browsers allow": {Profile: ca.ProfileServer, Max: 398 * day},
		"a default beyond the most":  {Profile: ca.ProfileServer, Validity: 3 * day, Max: 2 * day},
		"a second":                   {Profile: ca.ProfileServer, Validity: time.Second},
		"an unknown key":             {Profile: ca.ProfileServer, Keys: []ca.Algorithm{"dsa"}},
		"Ed25519":                    {Profile: ca.ProfileClient, Keys: []ca.Algorithm{ca.Ed25519}},
		"no OID":                     {Profile: ca.ProfileServer, OIDs: []string{"x"}},
		"keys for SSH":               {Profile: ca.ProfileSSHHost, Keys: []ca.Algorithm{ca.P256}},
		"two lines":                  {Profile: ca.ProfileServer, Text: "a\nb"},
	} {
		if err := a.SetPolicies(t.Context(), []ca.Policy{p}); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.SetPolicies(t.Context(), []ca.Policy{
		{Profile: "a"},
		{Profile: "a"},
	}); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("one profile twice: %v", err)
	}
}

// TestACertificateIsValidJustWhenAsked holds that a certificate begins and ends as it
// was asked for, or is refused.
func TestACertificateIsValidJustWhenAsked(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := newAuthority(t, ca.Config{Now: func() time.Time { return now }, IntermediateValidity: 200 * day})
	must(t, a.SetPolicies(t.Context(), []ca.Policy{
		{Profile: "long", Max: ca.MaxServerValidity},
		{Profile: ca.ProfileServer, Max: 90 * day},
	}))
	for name, c := range map[string]struct {
		ca.Period
		profile ca.Profile
		refused bool
	}{
		"an end":      {Period: ca.Period{NotAfter: now.Add(time.Hour)}},
		"both":        {Period: ca.Period{NotBefore: now.Add(day), NotAfter: now.Add(3 * day)}},
		"a beginning": {Period: ca.Period{NotBefore: now.Add(-time.Hour)}},
		"the longest": {Period: ca.Period{NotAfter: now.Add(90 * day)}},
		"longer":      {Period: ca.Period{NotAfter: now.Add(90*day + time.Second)}, refused: true},
		"longer, later": {
			Period:  ca.Period{NotBefore: now.Add(day), NotAfter: now.Add(92 * day)},
			refused: true,
		},
		"past": {
			Period:  ca.Period{NotBefore: now.Add(-2 * day), NotAfter: now.Add(-day)},
			refused: true,
		},
		"long past": {
			Period:  ca.Period{NotBefore: now.Add(-20 * day), NotAfter: now.Add(day)},
			refused: true,
		},
		"ends before it begins": {
			Period:  ca.Period{NotBefore: now.Add(2 * day), NotAfter: now.Add(day)},
			refused: true,
		},
		"longer than the intermediate": {
			Period: ca.Period{NotAfter: now.Add(201 * day)}, profile: "long",
			refused: true,
		},
		"as long as the intermediate's": {Period: ca.Period{NotAfter: now.Add(200 * day)}, profile: "long"},
	} {
		out, err := a.IssueServer(t.Context(), ca.ServerRequest{
			Names: []string{"a.example"}, Profile: c.profile,
			Period: c.Period,
		})
		_, accepted := a.Accept(c.profile, c.Period)
		if (err != nil) != c.refused || postern.CodeOf(err) != postern.CodeOf(accepted) ||
			c.refused && postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v, and beforehand %v", name, err, accepted)
		}
		if err != nil {
			continue
		}
		if !c.NotBefore.IsZero() && !out.Leaf.NotBefore.Equal(c.NotBefore) ||
			!c.NotAfter.IsZero() && !out.Leaf.NotAfter.Equal(c.NotAfter) {
			t.Errorf("%s: valid from %v to %v", name, out.Leaf.NotBefore, out.Leaf.NotAfter)
		}
	}
}

func publicKey(t *testing.T, alg ca.Algorithm) any {
	t.Helper()
	key, err := ca.GenerateKey(alg)
	must(t, err)
	return key.Public()
}
