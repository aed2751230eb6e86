package store

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// Credentials returns the YubiKeys and then the authenticators of a person; "" means
// all.
func (o *OTP) Credentials(ctx context.Context, person string) (list []otp.Credential, err error) {
	keys, err := o.Keys(ctx, person)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		list = append(list, k.Credential())
	}
	authenticators, err := o.OATHs(ctx, person)
	if err != nil {
		return nil, err
	}
	for _, d := range authenticators {
		list = append(list, d.Credential())
	}
	return list, nil
}

// Credential returns the YubiKey of a public ID, or the authenticator of an ID.
func (o *OTP) Credential(ctx context.Context, id string) (otp.Credential, error) {
	list, err := o.Credentials(ctx, "")
	if err != nil {
		return otp.Credential{}, err
	}
	for _, c := range list {
		if c.ID == id {
			return c, nil
		}
	}
	return otp.Credential{}, postern.Errorf(postern.NotFound, "there is no key or authenticator %q", id).
		WithHint("list the keys and authenticators")
}

// SetStatus enables, disables or revokes a YubiKey or an authenticator; one that was
// revoked stays so.
func (o *OTP) SetStatus(ctx context.Context, by postern.Actor, id string, status postern.CredentialStatus) error {
	c, err := o.Credential(ctx, id)
	if err != nil {
		return err
	}
	if c.Kind == postern.YubiKey {
		return o.SetKeyStatus(ctx, id, status)
	}
	return o.SetOATHStatus(ctx, by, c.Kind, id, status)
}
