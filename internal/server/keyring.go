package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// portalKeyring adapts one-time passwords, ACME keys and SSH certificates to the
// portal.
type portalKeyring struct {
	st    *state.State
	keys  *store.OTP
	check *otp.Checker
	ca    *ca.Authority
}

// RegisterYubiKey assigns a YubiKey to the person who touches it.
func (k portalKeyring) RegisterYubiKey(ctx context.Context, by postern.Actor, label, typed string) error {
	_, err := k.check.Register(ctx, k.keys, otp.Registration{Person: by.Person, Typed: typed, Label: label, By: by})
	return err
}

const (
	purposePendingTOTP = "portal totp" // of the secret in the page that waits for the first code of an app
	pendingTOTPLife    = time.Hour
)

// pendingTOTP is what a PendingTOTP's token seals.
type pendingTOTP struct {
	App  *otp.OATH
	Made time.Time
}

// NewTOTP makes a secret for an authenticator app. Nothing is stored before its
// first code.
func (k portalKeyring) NewTOTP(_ context.Context, person, label, issuer string) (portal.PendingTOTP, error) {
	return k.pending(pendingTOTP{otp.NewOATH(postern.TOTP, person, label), time.Now()}, issuer)
}

func (k portalKeyring) pending(p pendingTOTP, issuer string) (portal.PendingTOTP, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return portal.PendingTOTP{}, err
	}
	sealed, err := k.st.Store.Seal(purposePendingTOTP, p.App.Person, b)
	return portal.PendingTOTP{
		Token: base64.RawURLEncoding.EncodeToString(sealed), URL: p.App.URL(issuer),
		Label: p.App.Label,
	}, err
}

// AddTOTP adds the app whose first code is right. That code is used up.
func (k portalKeyring) AddTOTP(ctx context.Context, by postern.Actor, token, code, issuer string) (portal.PendingTOTP,
	error,
) {
	over := postern.Errorf(postern.Invalid, "This secret is too old, or not yours.").WithHint("Start again.")
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return portal.PendingTOTP{}, over
	}
	b, err := k.st.Store.Unseal(purposePendingTOTP, by.Person, sealed)
	if err != nil {
		return portal.PendingTOTP{}, over
	}
	var p pendingTOTP
	if err := json.Unmarshal(b, &p); err != nil {
		return portal.PendingTOTP{}, err
	}
	now := time.Now()
	if now.Sub(p.Made) > pendingTOTPLife {
		return portal.PendingTOTP{}, over
	}
	again, err := k.pending(p, issuer)
	if err != nil {
		return again, err
	}
	if p.App.Confirm(code, now) != nil {
		return again, postern.Errorf(postern.Denied, "That is not the code that the app should show now.").
			WithHint("Wait for the next one, and check that the clock of the app is right.")
	}
	switch _, err := k.st.Store.People().Credential(ctx, postern.TOTP, p.App.ID); {
	case err == nil:
		return portal.PendingTOTP{}, postern.Errorf(postern.Conflict, "This app was added already.")
	case postern.CodeOf(err) != postern.NotFound:
		return portal.PendingTOTP{}, err
	}
	return again, k.keys.AddOATH(ctx, by, p.App)
}

// AddACMEKey makes a key that binds an ACME account to the person.
func (k portalKeyring) AddACMEKey(ctx context.Context, by postern.Actor, label string) (id, key string, err error) {
	e := acme.NewExternalKey(by.Person, label, time.Now())
	err = k.st.Store.ACME().AddExternalKey(ctx, by, e, acme.KeyEvent(by.Person, e.ID, label, postern.ACMEKeyMade))
	return e.ID, base64.RawURLEncoding.EncodeToString(e.Secret), err
}

// ACMEKeys lists a person's keys.
func (k portalKeyring) ACMEKeys(ctx context.Context, person string) ([]portal.ACMEKey, error) {
	list, err := k.st.Store.ACME().ExternalKeys(ctx, person)
	var keys []portal.ACMEKey
	for _, e := range list {
		keys = append(keys, portal.ACMEKey{
			ID: e.ID, Label: e.Label, Account: e.Account, Created: e.Created,
			Disabled: e.Disabled,
		})
	}
	return keys, err
}

// SetACMEKey disables or enables a person's key, and the account that it is bound to.
func (k portalKeyring) SetACMEKey(ctx context.Context, by postern.Actor, id string, enabled bool) error {
	if enabled {
		return k.st.Store.ACME().EnableExternalKey(ctx, by, by.Person,
			id, acme.KeyEvent(by.Person, id, "", postern.ACMEKeyEnabled))
	}
	return k.st.Store.ACME().DisableExternalKey(ctx, by, by.Person, id,
		acme.KeyEvent(by.Person, id, "", postern.ACMEKeyDisabled))
}

// IssueSSH issues a certificate for a person's SSH key, as the rules say.
func (k portalKeyring) IssueSSH(ctx context.Context, by postern.Actor, line string) (portal.SSHCertificate, error) {
	key, err := sign.ParsePublicKey(line)
	if err != nil {
		return portal.SSHCertificate{}, err
	}
	c, err := ruledCertificate(ctx, k.st, by.Person, key)
	if err != nil {
		return portal.SSHCertificate{}, err
	}
	signed, err := SSHAuthority{k.ca}.SignUser(ctx, by, c)
	return portal.SSHCertificate{
		Line: signed.Line, Accounts: signed.Principals, Expires: signed.ValidBefore,
		KnownHosts: signed.KnownHosts,
	}, err
}

// RevokeSSH revokes one of a person's SSH certificates.
func (k portalKeyring) RevokeSSH(ctx context.Context, by postern.Actor, serial string) error {
	own, err := k.ca.SSHCertificates(ctx, by.Person)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(own, func(c ca.SSHCertificate) bool { return strconv.FormatUint(c.Serial, 10) == serial })
	if i < 0 {
		return postern.Errorf(postern.NotFound, "You have no such certificate.")
	}
	return k.ca.RevokeSSH(ctx, own[i].Serial, by)
}
