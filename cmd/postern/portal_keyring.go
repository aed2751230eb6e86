package main

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/acme"
	"github.com/postern-project/postern/ca"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/portal"
	"github.com/postern-project/postern/sshd"
	"github.com/postern-project/postern/store"
)

// portalKeyring fits one-time passwords, ACME keys and SSH certificates to the
// portal.
type portalKeyring struct {
	st    *state
	keys  *store.OTP
	check *otp.Checker
	ca    *ca.Authority
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
	err = k.st.Store.AddACMEExternalKey(ctx, e, acmeKeyEvent(person, e.ID, "key made"))
	return e.ID, base64.RawURLEncoding.EncodeToString(e.Secret), err
}

// ACMEKeys lists a person's keys.
func (k portalKeyring) ACMEKeys(ctx context.Context, person string) ([]portal.ACMEKey, error) {
	list, err := k.st.Store.ACMEExternalKeys(ctx, person)
	var keys []portal.ACMEKey
	for _, e := range list {
		keys = append(keys, portal.ACMEKey{ID: e.ID, Label: e.Label, Account: e.Account, Created: e.Created, Disabled: e.Disabled})
	}
	return keys, err
}

// DisableACMEKey disables a person's key, and the account that it bound.
func (k portalKeyring) DisableACMEKey(ctx context.Context, person, id string) error {
	return k.st.Store.DisableACMEExternalKey(ctx, person, id, acmeKeyEvent(person, id, "key disabled"))
}

// SignSSH certifies a person's SSH key as the rules say.
func (k portalKeyring) SignSSH(ctx context.Context, person, line, address string) (portal.SSHCertificate, error) {
	key, err := sshd.ParsePublicKey(line)
	if err != nil {
		return portal.SSHCertificate{}, err
	}
	c, err := ruledCertificate(ctx, k.st, person, key)
	if err != nil {
		return portal.SSHCertificate{}, err
	}
	c.Address = address
	signed, err := sshAuthority{k.ca}.SignUser(ctx, c)
	return portal.SSHCertificate{Line: signed.Line, Accounts: signed.Principals, Expires: signed.ValidBefore, KnownHosts: signed.KnownHosts}, err
}

// RevokeSSH revokes one of a person's SSH certificates.
func (k portalKeyring) RevokeSSH(ctx context.Context, person, serial, address string) error {
	own, err := k.ca.SSHCertificates(ctx, person)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(own, func(c ca.SSHCertificate) bool { return strconv.FormatUint(c.Serial, 10) == serial })
	if i < 0 {
		return postern.Errorf(postern.NotFound, "You have no such certificate.")
	}
	return k.ca.RevokeSSH(ctx, own[i].Serial, ca.Origin{Person: person, Address: address})
}
