package ca_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ssh"
)

// TestAYearOfRotation lets intermediates of five months and a root be followed in a year of
// days: a server and a client renew what they have, a host its SSH certificate.
func TestAYearOfRotation(t *testing.T) {
	l := newLife(t, ca.Config{
		IntermediateValidity: 150 * day, ServerValidity: 20 * day, ClientValidity: 30 * day, SSHHostValidity: 20 * day,
	})
	l.pass(t, 120*day, day)
	l.next(t)
	l.pass(t, 60*day, day)
	l.retire(t)
	l.pass(t, 185*day, day)
	// Twice in that year an intermediate is made because one ends, and once for a root.
	if n := len(l.a.Intermediates(ca.Server)); n != 4 {
		t.Errorf("there were %d intermediates for servers", n)
	}
}

// TestTenYearsOfRotation does the same with the default times, in months.
func TestTenYearsOfRotation(t *testing.T) {
	l := newLife(t, ca.Config{})
	l.pass(t, 5*365*day, 20*day)
	l.next(t)
	l.pass(t, 400*day, 20*day)
	l.retire(t)
	l.pass(t, 4*365*day, 20*day)
}

// life is an authority over a long time, and what people out there have of it.
type life struct {
	a        *ca.Authority
	db       *store.DB
	now      time.Time
	trusting []*x509.Certificate // a client for each root that it is to trust, and no other
	server   *ca.Issued
	client   *ca.Issued
	host     *ca.SSHIssued
	hostKey  ssh.PublicKey
	revoked  int
	numbers  map[string]int64
	serials  map[string]bool
}

func newLife(t *testing.T, cfg ca.Config) *life {
	t.Helper()
	l := &life{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), numbers: map[string]int64{}, serials: map[string]bool{},
		hostKey: sshKey(t),
	}
	cfg.Now = func() time.Time { return l.now }
	l.a, l.db = newAuthority(t, cfg)
	l.trusting = l.a.Roots()
	l.server, l.client = issueBoth(t, l.a)
	return l
}

// pass does what servers do, and checks what is served, again and again.
func (l *life) pass(t *testing.T, length, step time.Duration) {
	t.Helper()
	for end := l.now.Add(length); l.now.Before(end); l.now = l.now.Add(step) {
		must(t, second(l.a.RenewIntermediates(t.Context())))
		must(t, second(l.db.CA().RemoveExpired(t.Context(), l.now, 0)))
		l.renew(t)
		l.check(t)
		l.revokeOne(t)
	}
}

// renew renews what has two steps left, or a third of its life.
func (l *life) renew(t *testing.T) {
	t.Helper()
	for _, c := range []**ca.Issued{&l.server, &l.client} {
		life := (*c).NotAfter.Sub((*c).NotBefore)
		if (*c).NotAfter.Sub(l.now) > life/3 {
			*c = load(t, l.a, *c)
			continue
		}
		next, err := l.a.Renew(t.Context(), (*c).Serial, ca.RenewRequest{})
		must(t, err)
		*c = next
		l.fresh(t, next.Serial)
	}
	if l.host == nil || l.host.ValidBefore.Sub(l.now) < l.host.ValidBefore.Sub(l.host.ValidAfter)/3 {
		host, err := l.a.SignSSHHost(t.Context(),
			ca.SSHHostRequest{Names: []string{"host.example.com"}, Key: l.hostKey})
		must(t, err)
		l.host = host
		l.fresh(t, fmt.Sprint("ssh ", host.Serial))
	}
}

// fresh fails if a serial number was issued before.
func (l *life) fresh(t *testing.T, serial string) {
	t.Helper()
	if l.serials[serial] {
		t.Errorf("on %v: the serial number %s was issued before", l.now, serial)
	}
	l.serials[serial] = true
}

// check fails unless clients that trust one root verify what is served now, by lists that
// are valid and whose numbers do not fall.
func (l *life) check(t *testing.T) {
	t.Helper()
	for _, root := range l.trusting {
		for _, c := range []*ca.Issued{l.server, l.client} {
			c.Roots = []*x509.Certificate{root}
			verifiesAt(t, c, l.now)
		}
	}
	for _, i := range l.a.Issuers() {
		c, err := x509.ParseCertificate(i.Certificate)
		if err != nil || !l.now.Before(c.NotAfter) {
			continue // of SSH, or its time is over
		}
		crl, err := l.a.CRL(t.Context(), i.ID)
		must(t, err)
		if crl.Number < l.numbers[i.ID] || !l.now.Before(crl.NextUpdate) {
			t.Errorf("on %v: the list %d of %s follows %d and ends on %v", l.now, crl.Number, i.ID, l.numbers[i.ID],
				crl.NextUpdate)
		}
		l.numbers[i.ID] = crl.Number
	}
	_, keys, err := l.a.SSHCA(ca.SSHHost)
	must(t, err)
	checker := ssh.CertChecker{
		IsHostAuthority: func(key ssh.PublicKey, _ string) bool { return trusts(keys, key) },
		Clock:           func() time.Time { return l.now },
	}
	if err := checker.CheckHostKey("host.example.com:22", nil, l.host.Cert); err != nil {
		t.Errorf("on %v: a client refuses the host: %v", l.now, err)
	}
}

func trusts(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	for _, k := range keys {
		if k.(ssh.CryptoPublicKey).CryptoPublicKey().(interface{ Equal(crypto.PublicKey) bool }).
			Equal(key.(ssh.CryptoPublicKey).CryptoPublicKey()) {
			return true
		}
	}
	return false
}

// revokeOne revokes a certificate, and fails unless the next list has a greater number.
func (l *life) revokeOne(t *testing.T) {
	t.Helper()
	if l.revoked++; l.revoked%10 != 0 {
		return
	}
	out, err := l.a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	l.fresh(t, out.Serial)
	must(t, l.a.Revoke(t.Context(), out.Serial, postern.Superseded, postern.Actor{}))
	crl, err := l.a.CRL(t.Context(), out.Issuer)
	must(t, err)
	if crl.Number <= l.numbers[out.Issuer] {
		t.Errorf("on %v: a certificate was revoked, and the list's number is still %d", l.now, crl.Number)
	}
	l.numbers[out.Issuer] = crl.Number
}

// next makes the next root and the next host CA. There are new clients from now on, which
// have only these.
func (l *life) next(t *testing.T) {
	t.Helper()
	must(t, second(l.a.NewRoot(t.Context(), nil)))
	l.trusting = l.a.Roots()
	if len(l.trusting) != 2 {
		t.Fatalf("%d roots are trusted", len(l.trusting))
	}
	_, _, err := l.a.NewSSHCA(t.Context(), ca.SSHHost)
	must(t, err)
}

// retire retires what was followed: all that it issued has been renewed.
func (l *life) retire(t *testing.T) {
	t.Helper()
	left := func(ctx context.Context) []ca.Holder {
		list, err := l.a.Holders(ctx, "")
		must(t, err)
		return list
	}
	if list := left(t.Context()); len(list) != 0 {
		t.Fatalf("on %v there are %+v", l.now, list)
	}
	for _, id := range []string{"root", "ssh-host"} {
		must(t, l.a.Retire(t.Context(), ca.RetireRequest{ID: id}))
	}
	l.trusting = l.a.Roots()
	l.server, l.client = load(t, l.a, l.server), load(t, l.a, l.client)
}
