package ca_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// TestIntermediatesAreFollowedInTime lets 25 years pass, and on every tenth day does what a
// server does each hour. No certificate of an authority whose root is valid ends early,
// and none is issued under one that has expired.
func TestIntermediatesAreFollowedInTime(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := start
	a, _ := newAuthority(t, ca.Config{Now: func() time.Time { return now }})
	root := a.Root()
	key := publicKey(t, ca.P256)
	made := map[ca.Role]int{}
	for ; now.Before(start.Add(25 * 365 * day)); now = now.Add(10 * day) {
		list, err := a.RenewIntermediates(t.Context())
		must(t, err)
		for _, i := range list {
			made[i.Role]++
		}
		server, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}, Key: key})
		if !now.Before(root.NotAfter) {
			wantCode(t, err, postern.Unavailable, "has expired")
			continue
		}
		must(t, err)
		client, err := a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Key: key})
		must(t, err)
		for _, out := range []*ca.Issued{server, client} {
			verifiesAt(t, out, now)
			want := map[ca.Profile]time.Duration{ca.ProfileServer: 90 * day, ca.ProfileClient: 365 * day}[out.Profile]
			if end := now.Add(want); !out.Leaf.NotAfter.Equal(end) && end.Before(root.NotAfter) {
				t.Errorf("on %v: a %s certificate ends on %v, want %v", now, out.Profile, out.Leaf.NotAfter, end)
			}
		}
	}
	if made[ca.Server] != 2 || made[ca.Client] != 2 {
		t.Errorf("made %v, want two intermediates of each role until the root ends", made)
	}
	if !a.EndsWithRoot(ca.Server) || !a.EndsWithRoot(ca.Client) {
		t.Error("the last intermediates do not end with the root")
	}
}

// verifiesAt fails unless a chain, as a server shows it, verifies at a time.
func verifiesAt(t *testing.T, out *ca.Issued, at time.Time) {
	t.Helper()
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(out.Roots[0])
	for _, c := range out.Chain {
		others.AddCert(c)
	}
	_, err := out.Leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		t.Errorf("on %v: %v", at, err)
	}
}

// TestIntermediatesThatAreNotFollowed holds what an administrator must do.
func TestIntermediatesThatAreNotFollowed(t *testing.T) {
	now := time.Now()
	cfg := ca.Config{Now: func() time.Time { return now }, IntermediateValidity: 100 * day}
	nothingMade := func(a *ca.Authority) error {
		t.Helper()
		made, err := a.RenewIntermediates(t.Context())
		if len(made) > 0 {
			t.Errorf("made %v", made)
		}
		return err
	}
	early, _ := newAuthority(t, cfg)
	must(t, nothingMade(early))

	revoked, _ := newAuthority(t, cfg)
	for _, role := range []ca.Role{ca.Server, ca.Client} {
		must(t, revoked.Revoke(t.Context(), ca.SerialString(revoked.Chain(role)[0].SerialNumber),
			postern.KeyCompromise, postern.Actor{}))
	}
	must(t, revoked.Reload(t.Context()))

	away, _ := newAuthority(t, cfg)
	exported, err := away.ExportRootKey(t.Context(), "", []byte("a passphrase"))
	must(t, err)
	key, err := ca.ParseKey(exported, []byte("a passphrase"))
	must(t, err)
	must(t, away.RemoveRootKey(t.Context(), key))

	now = now.Add(99 * day)
	must(t, nothingMade(revoked))
	wantCode(t, nothingMade(away), postern.Unavailable, "root's key is not on this machine")
	made, err := early.RenewIntermediates(t.Context())
	must(t, err)
	if len(made) != 2 {
		t.Errorf("made %v in time", made)
	}
}

// TestServersFollowAnIntermediateOnce lets two servers of one store do it at once.
func TestServersFollowAnIntermediateOnce(t *testing.T) {
	past := time.Now().Add(-11 * 365 * day)
	_, db := newAuthority(t, ca.Config{Now: func() time.Time { return past }})
	var servers []*ca.Authority
	for range 4 {
		a, err := ca.Open(t.Context(), ca.Config{}, db.CA())
		must(t, err)
		servers = append(servers, a)
	}
	failed := make(chan error, len(servers))
	for _, a := range servers {
		go func() { failed <- second(a.RenewIntermediates(t.Context())) }()
	}
	for range servers {
		must(t, <-failed)
	}
	for _, a := range servers {
		must(t, a.Reload(t.Context()))
		if n := len(a.Intermediates(ca.Server)) + len(a.Intermediates(ca.Client)); n != 4 {
			t.Errorf("there are %d intermediates, want 4", n)
		}
	}
}

func second[T any](_ T, err error) error { return err }
