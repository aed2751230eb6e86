package store_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/store"
	"golang.org/x/crypto/ssh"
)

// authorityAt makes an authority with a person dan, at a time that the test sets.
func authorityAt(t *testing.T, db *store.DB, now *time.Time) *ca.Authority {
	t.Helper()
	must(t, db.People().AddPerson(t.Context(), postern.Person{Name: "dan"}))
	a, err := ca.Init(t.Context(), ca.Config{Now: func() time.Time { return *now }}, db.CA())
	must(t, err)
	return a
}

// issueAll issues a certificate of each kind.
func issueAll(t *testing.T, a *ca.Authority) (client *ca.Issued) {
	t.Helper()
	_, err := a.IssueServer(t.Context(), ca.ServerRequest{Names: []string{"www.example.com"}})
	must(t, err)
	client, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan"})
	must(t, err)
	pub, _, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	key, err := ssh.NewPublicKey(pub)
	must(t, err)
	_, err = a.SignSSHUser(t.Context(), ca.SSHUserRequest{Person: "dan", Key: key})
	must(t, err)
	return client
}

// removesExpired holds what stays of certificates two years after they were issued, and
// that of many each is removed.
func removesExpired(t *testing.T, open opener) {
	db, start := open(t), time.Now().Add(-2*365*24*time.Hour)
	now := start
	a := authorityAt(t, db, &now)
	issueAll(t, a)
	known := issueAll(t, a)
	must(t, a.Revoke(t.Context(), known.Serial, postern.KeyCompromise, postern.Actor{}))
	const many = 1100
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		for n := range many {
			_, err := tx.Exec(ctx, `INSERT INTO ssh_certificates (serial, issuer, key_id, person, principals,
				fingerprint, certificate, valid_after, valid_before, issued, revoked)
				SELECT $1, issuer, key_id, person, principals, fingerprint, certificate, valid_after, valid_before,
				issued, revoked FROM ssh_certificates WHERE serial = 1`, 1000+n)
			if err != nil {
				return err
			}
		}
		return nil
	}))
	now = time.Now()
	issueAll(t, a)

	removed, err := db.CA().RemoveExpired(t.Context(), now, 2*365*24*time.Hour)
	must(t, err)
	if removed != 0 {
		t.Errorf("%d certificates are removed that did not expire two years ago", removed)
	}
	removed, err = db.CA().RemoveExpired(t.Context(), now, 0)
	must(t, err)
	if want := 2 + 1 + 2 + many; removed != want { // servers', a client's, SSH's; the compromised one stays
		t.Errorf("%d certificates are removed, want %d", removed, want)
	}
	certs, err := a.Certificates(t.Context(), ca.Filter{Leaves: true})
	must(t, err)
	if len(certs) != 3 || certs[2].Serial != known.Serial {
		t.Errorf("left are %+v", certs)
	}
	_, err = a.IssueClient(t.Context(), ca.ClientRequest{Person: "dan", Key: known.Leaf.PublicKey})
	if postern.CodeOf(err) != postern.Denied {
		t.Errorf("a key that others know is certified: %v", err)
	}
	people := db.People()
	held, err := people.CredentialsOf(t.Context(), "dan")
	must(t, err)
	if len(held) != 3 {
		t.Errorf("dan has the credentials %+v", held)
	}
	kept, err := db.Kept(t.Context())
	must(t, err)
	if got := fmt.Sprint(kept[:2]); got != "[{X.509 certificates 5} {SSH certificates 1}]" {
		t.Errorf("the database has %s", got)
	}
	if again, err := db.CA().RemoveExpired(t.Context(), now, 0); err != nil || again != 0 {
		t.Errorf("a second time %d are removed: %v", again, err)
	}
}

// retired has a root and an SSH CA followed, and retires those before.
func retired(t *testing.T, open opener) {
	db, now := open(t), time.Now()
	a := authorityAt(t, db, &now)
	issueAll(t, a)
	_, err := a.NewRoot(t.Context(), nil)
	must(t, err)
	_, now, err = a.NewSSHCA(t.Context(), ca.SSHUser)
	must(t, err)
	other, err := ca.Open(t.Context(), ca.Config{Now: func() time.Time { return now }}, open(t).CA())
	must(t, err)
	err = other.Retire(t.Context(), ca.RetireRequest{ID: "root"})
	if postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a root is retired whose certificates are valid: %v", err)
	}
	must(t, other.Retire(t.Context(), ca.RetireRequest{ID: "root", Revoke: true}))
	must(t, a.Retire(t.Context(), ca.RetireRequest{ID: "ssh-user"})) // its certificate lived for hours
	anchors, err := other.Anchors(t.Context())
	must(t, err)
	var got string
	for _, c := range anchors {
		got += fmt.Sprintf("%s %s %d, ", c.ID, c.Status, c.Certificates)
	}
	if got != "root retired 0, ssh-user retired 0, ssh-host issues 0, root-2 issues 0, ssh-user-2 issues 0, " {
		t.Error(got)
	}
	issueAll(t, a)
	if holders, err := other.Holders(t.Context(), "root-2"); err != nil || len(holders) != 2 {
		t.Errorf("under the new root are %+v, %v", holders, err)
	}
}
