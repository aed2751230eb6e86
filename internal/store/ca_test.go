package store_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ssh"
)

// twoInits start at once on two servers: one makes the authority, the other gets a
// Conflict.
func twoInits(t *testing.T, open opener) {
	servers := []*store.DB{open(t), open(t)}
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, db := range servers {
		wg.Go(func() { _, errs[i] = ca.Init(t.Context(), ca.Config{}, db.CA()) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || postern.CodeOf(errs[0]) != postern.Conflict &&
		postern.CodeOf(errs[1]) != postern.Conflict {
		t.Errorf("two inits: %v, %v", errs[0], errs[1])
	}
	one, err := ca.Open(t.Context(), ca.Config{}, servers[0].CA())
	must(t, err)
	two, err := ca.Open(t.Context(), ca.Config{}, servers[1].CA())
	must(t, err)
	if !one.Root().Equal(two.Root()) || len(one.Issuers()) != 5 {
		t.Errorf("two roots, or not five CAs: %d", len(one.Issuers()))
	}
}

// authorities returns one authority, open on two servers, and dan.
func authorities(t *testing.T, open opener) (a, b *ca.Authority, db *store.DB) {
	t.Helper()
	db = open(t)
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dan", Email: "dan@example.com"}))
	a, err := ca.Init(t.Context(), ca.Config{URL: "http://pki.example.com/"}, db.CA())
	must(t, err)
	b, err = ca.Open(t.Context(), ca.Config{}, open(t).CA())
	must(t, err)
	if b.URL() != "http://pki.example.com" {
		t.Errorf("the address is kept as %q", b.URL())
	}
	return a, b, db
}

func certificates(t *testing.T, open opener) {
	a, b, db := authorities(t, open)
	ctx := t.Context()
	www, err := a.IssueServer(ctx, ca.ServerRequest{Names: []string{"www.example.com", "a.example.com", "192.0.2.1"}})
	must(t, err)
	dan, err := b.IssueClient(ctx, ca.ClientRequest{Person: "dan", Label: "phone"})
	must(t, err)
	next, err := b.Renew(ctx, www.Serial, ca.RenewRequest{SameKey: true})
	must(t, err)
	for _, c := range []struct {
		f    ca.Filter
		want []string
	}{
		{ca.Filter{Profile: ca.ProfileServer}, []string{next.Serial, www.Serial}},
		{ca.Filter{Person: "dan"}, []string{dan.Serial}},
		{ca.Filter{Name: "www.example.com"}, []string{next.Serial, www.Serial}},
		{ca.Filter{Name: "192.0.2.1", Limit: 1}, []string{next.Serial}},
		{ca.Filter{Name: "www.example"}, nil},
		{ca.Filter{Name: "%"}, nil},
		{ca.Filter{Name: "dan@example.com"}, []string{dan.Serial}},
		{ca.Filter{Key: www.Certificate.Key}, []string{next.Serial, www.Serial}},
		{ca.Filter{Profile: ca.ProfileServer, After: next.Serial}, []string{www.Serial}},
		{ca.Filter{Profile: ca.ProfileServer, Valid: time.Now().Add(100 * 24 * time.Hour)}, nil},
	} {
		list, err := a.Certificates(ctx, c.f)
		must(t, err)
		var got []string
		for _, x := range list {
			got = append(got, x.Serial)
		}
		if strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%+v selects %v, want %v", c.f, got, c.want)
		}
	}
	before, err := db.Generation(ctx)
	must(t, err)
	first, err := a.CRL(ctx, "client")
	must(t, err)
	// The credential is revoked together with the certificate.
	must(t, db.People().SetCredentialStatus(ctx, postern.X509Certificate, dan.Serial, postern.CredentialRevoked))
	after, err := db.Generation(ctx)
	must(t, err)
	if after == before {
		t.Error("the generation stays after a revocation")
	}
	var wg sync.WaitGroup
	for _, x := range []*ca.Authority{a, b, a, b} {
		wg.Go(func() {
			crl, err := x.CRL(ctx, "client")
			if err != nil || crl.Number != first.Number+1 {
				t.Errorf("list %d, %v; want %d", crl.Number, err, first.Number+1)
				return
			}
			list, err := x509.ParseRevocationList(crl.DER)
			if err != nil || len(list.RevokedCertificateEntries) != 1 ||
				ca.SerialString(list.RevokedCertificateEntries[0].SerialNumber) != dan.Serial {
				t.Errorf("the list holds %v, %v", list.RevokedCertificateEntries, err)
			}
		})
	}
	wg.Wait()
	if err := a.Revoke(ctx, dan.Serial, postern.Unspecified,
		postern.Actor{}); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("revoke again: %v", err)
	}
	if err := a.Revoke(ctx, "abc", postern.Unspecified, postern.Actor{}); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("revoke what was never issued: %v", err)
	}
}

func sshCertificates(t *testing.T, open opener) {
	a, b, db := authorities(t, open)
	ctx := t.Context()
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := ssh.NewPublicKey(pub)
	must(t, err)
	var mu sync.Mutex
	serials := map[uint64]bool{}
	var wg sync.WaitGroup
	for _, x := range []*ca.Authority{a, b} {
		wg.Go(func() {
			for range 10 {
				c, err := x.SignSSHUser(ctx, ca.SSHUserRequest{Person: "dan", Key: key, Principals: []string{
					"dan",
					"root",
				}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				serials[c.Serial] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(serials) != 20 {
		t.Errorf("20 certificates have %d serial numbers", len(serials))
	}
	credentials, err := db.People().CredentialsOf(ctx, "dan")
	must(t, err)
	list, err := b.SSHCertificates(ctx, "dan")
	must(t, err)
	if len(credentials) != 20 || len(list) != 20 || strings.Join(list[0].Principals, " ") != "dan root" ||
		list[0].Serial < list[1].Serial {
		t.Errorf("dan has %d credentials, %d certificates", len(credentials), len(list))
	}
	empty, err := a.KRL(ctx)
	must(t, err)
	must(t, a.RevokeSSH(ctx, list[3].Serial, postern.Actor{}))
	if err := b.RevokeSSH(ctx, list[3].Serial, postern.Actor{}); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("revoke again: %v", err)
	}
	must(t, b.RevokeSSHKey(ctx, key, postern.Actor{}))
	if _, err := a.SignSSHUser(ctx, ca.SSHUserRequest{
		Person: "dan", Key: key,
		Principals: []string{"dan"},
	}); postern.CodeOf(err) != postern.Denied {
		t.Errorf("a revoked key is certified again: %v", err)
	}
	for _, c := range []struct {
		status postern.PersonStatus
		want   int
	}{{postern.PersonSuspended, 20}, {postern.PersonActive, 1}} {
		before, err := db.Hosts().KRLVersion(ctx)
		must(t, err)
		must(t, db.People().SetPersonStatus(ctx, "dan", c.status))
		certs, _, version, err := db.CA().SSHRevoked(ctx, time.Now())
		must(t, err)
		if len(certs) != 1 || len(certs[0].Serials) != c.want || version <= before {
			t.Errorf("%s: revoked are %v, version %d after %d", c.status, certs, version, before)
		}
	}
	must(t, db.People().SetPersonStatus(ctx, "dan", postern.PersonRemoved))
	certs, keys, version, err := db.CA().SSHRevoked(ctx, time.Now())
	must(t, err)
	if len(certs) != 1 || len(certs[0].Serials) != 20 || len(keys) != 1 || !bytes.Equal(keys[0], key.Marshal()) ||
		version < 3 {
		t.Errorf("revoked: %v, %d keys, version %d", certs, len(keys), version)
	}
	if full, err := b.KRL(ctx); err != nil || len(full) <= len(empty) {
		t.Errorf("the list has %d bytes after %d, %v", len(full), len(empty), err)
	}
}

func signTokens(t *testing.T, open opener) {
	a, b, _ := authorities(t, open)
	ctx := t.Context()
	if _, err := a.AddToken(ctx, "deploy", []string{"Example.com", "*"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddToken(ctx, "deploy", []string{"example.org"}, 0); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a second token of that name: %v", err)
	}
	list, err := b.Tokens(ctx)
	must(t, err)
	if len(list) != 1 || strings.Join(list[0].Domains, " ") != "example.com *" ||
		list[0].Expires.Sub(list[0].Created) != time.Hour {
		t.Errorf("tokens %+v", list)
	}
	must(t, b.RemoveToken(ctx, "deploy"))
	if err := a.RemoveToken(ctx, "deploy"); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("remove again: %v", err)
	}
}
