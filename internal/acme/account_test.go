package acme_test

import (
	"encoding/base64"
	"slices"
	"testing"

	client "github.com/mholt/acmez/v3/acme"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/posterntest"
)

func TestAccounts(t *testing.T) {
	w := newWorld(t, acme.Config{})
	ctx := t.Context()
	if _, err := w.client.NewAccount(ctx,
		client.Account{PrivateKey: posterntest.NewKey(t)}); kind(err) != "externalAccountRequired" {
		t.Errorf("an account without a person: %v", err)
	}
	alice := w.account(t, "alice")
	if again, err := w.client.NewAccount(ctx, client.Account{PrivateKey: alice.PrivateKey}); err != nil ||
		again.Location != alice.Location {
		t.Errorf("the same key again: %v %v", again.Location, err)
	}
	if _, err := w.client.GetAccount(ctx,
		client.Account{PrivateKey: posterntest.NewKey(t)}); kind(err) != "accountDoesNotExist" {
		t.Errorf("an account that does not exist: %v", err)
	}
	eab := w.external(t, "alice")
	for name, change := range map[string]func(*client.EAB){
		"a wrong secret": func(e *client.EAB) { e.MACKey = base64.RawURLEncoding.EncodeToString(make([]byte, 32)) },
		"a wrong ID":     func(e *client.EAB) { e.KeyID += "x" },
	} {
		bad := eab
		change(&bad)
		a := client.Account{PrivateKey: posterntest.NewKey(t)}
		if err := a.SetExternalAccountBinding(ctx, w.client.Client, bad); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.NewAccount(ctx, a); kind(err) != "unauthorized" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i, want := range []string{"", "unauthorized"} { // a key binds one account
		a := client.Account{PrivateKey: posterntest.NewKey(t)}
		if err := a.SetExternalAccountBinding(ctx, w.client.Client, eab); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.NewAccount(ctx, a); kind(err) != want {
			t.Errorf("binding %d: %v", i, err)
		}
	}
	// Roll over: the new key works, the old one does not.
	fresh := posterntest.NewKey(t)
	rolled, err := w.client.AccountKeyRollover(ctx, alice, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.GetAccount(ctx, rolled); err != nil {
		t.Errorf("after roll-over: %v", err)
	}
	if _, err := w.client.NewOrder(ctx, alice, forName("a.test")); kind(err) != "unauthorized" {
		t.Errorf("the old key after roll-over: %v", err)
	}
	bob := w.account(t, "bob")
	if _, err := w.client.AccountKeyRollover(ctx, bob, fresh); err == nil {
		t.Error("two accounts have one key")
	}
	rolled.Contact = []string{"mailto:new@example.com"}
	if a, err := w.client.UpdateAccount(ctx, rolled); err != nil || !slices.Equal(a.Contact, rolled.Contact) {
		t.Errorf("update: %v %v", a.Contact, err)
	}
	rolled.Contact = []string{"tel:+1"}
	if _, err := w.client.UpdateAccount(ctx, rolled); kind(err) != "unsupportedContact" {
		t.Errorf("a contact that is no mail: %v", err)
	}
	rolled.Contact, rolled.Status = nil, client.StatusDeactivated
	if _, err := w.client.UpdateAccount(ctx, rolled); err != nil {
		t.Error(err)
	}
	if _, err := w.client.GetAccount(ctx, rolled); kind(err) != "unauthorized" {
		t.Errorf("a deactivated account: %v", err)
	}
}

func TestASuspendedPersonsAccountStops(t *testing.T) {
	w := newWorld(t, acme.Config{})
	alice := w.account(t, "alice")
	order := func() error {
		_, err := w.client.NewOrder(t.Context(), alice, forName("a.test"))
		return err
	}
	if err := order(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status postern.PersonStatus
		want   string
	}{{postern.PersonSuspended, "unauthorized"}, {postern.PersonActive, ""}} {
		if err := w.db.People().SetPersonStatus(t.Context(), "alice", c.status); err != nil {
			t.Fatal(err)
		}
		if err := order(); kind(err) != c.want {
			t.Errorf("%s: %v", c.status, err)
		}
	}
	keys, err := w.db.ACME().ExternalKeys(t.Context(), "alice")
	if err != nil || len(keys) != 1 || keys[0].Account == "" {
		t.Fatal(keys, err)
	}
	if err := w.db.ACME().DisableExternalKey(t.Context(), postern.Actor{}, "bob", keys[0].ID,
		postern.Event{Kind: postern.EventACMEAccount}); err == nil {
		t.Error("bob disables alice's key")
	}
	if err := w.db.ACME().DisableExternalKey(t.Context(), postern.Actor{}, "alice", keys[0].ID,
		postern.Event{Kind: postern.EventACMEAccount}); err != nil {
		t.Fatal(err)
	}
	if err := order(); kind(err) != "unauthorized" {
		t.Errorf("the account of a disabled key: %v", err)
	}
}
