package main

import (
	"context"
	"encoding/base64"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/acme"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/portal"
	"github.com/postern-project/postern/store"
)

// portalKeyring fits one-time passwords and ACME keys to the portal.
type portalKeyring struct {
	db    *store.DB
	keys  *store.OTP
	check *otp.Checker
}

// RegisterYubiKey gives a YubiKey to the person who touches it.
func (k portalKeyring) RegisterYubiKey(ctx context.Context, person, label, typed, address string) (string, error) {
	return k.check.Register(ctx, k.keys, otp.Registration{Person: person, Typed: typed, Label: label, Address: address})
}

// AddTOTP makes a secret for an authenticator app and returns its URL.
func (k portalKeyring) AddTOTP(ctx context.Context, person, label, issuer string) (string, error) {
	d := otp.NewOATH(postern.TOTP, person, label)
	return d.URL(issuer), k.keys.AddOATH(ctx, d)
}

// AddACMEKey makes a key that binds an ACME account to the person.
func (k portalKeyring) AddACMEKey(ctx context.Context, person, label string) (id, key string, err error) {
	e := acme.NewExternalKey(person, label, time.Now())
	err = k.db.AddACMEExternalKey(ctx, e, acmeKeyEvent(person, e.ID, "key made"))
	return e.ID, base64.RawURLEncoding.EncodeToString(e.Secret), err
}

// ACMEKeys lists a person's keys.
func (k portalKeyring) ACMEKeys(ctx context.Context, person string) ([]portal.ACMEKey, error) {
	list, err := k.db.ACMEExternalKeys(ctx, person)
	var keys []portal.ACMEKey
	for _, e := range list {
		keys = append(keys, portal.ACMEKey{ID: e.ID, Label: e.Label, Account: e.Account, Created: e.Created, Disabled: e.Disabled})
	}
	return keys, err
}

// DisableACMEKey disables a person's key, and the account that it bound.
func (k portalKeyring) DisableACMEKey(ctx context.Context, person, id string) error {
	return k.db.DisableACMEExternalKey(ctx, person, id, acmeKeyEvent(person, id, "key disabled"))
}
