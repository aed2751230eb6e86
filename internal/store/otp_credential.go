package store

import (
	"context"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// Page selects one-time passwords. The zero Page selects all.
type Page struct {
	Person string
	After  string // the ID of the last one before
	Limit  int    // 0: all
}

// Credentials returns the YubiKeys, by their IDs, and then the authenticators, as they
// were added.
func (o *OTP) Credentials(ctx context.Context, p Page) (list []otp.Credential, err error) {
	err = o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		list = nil
		behindKeys := false
		if p.After != "" {
			if behindKeys, err = tx.isAuthenticator(ctx, p.After); err != nil {
				return err
			}
		}
		if !behindKeys {
			keys, err := o.keysOf(ctx, tx, p)
			if err != nil {
				return err
			}
			for _, k := range keys {
				list = append(list, k.Credential())
			}
			p.After = ""
		}
		if p.Limit > 0 && len(list) == p.Limit {
			return nil
		}
		rest := p
		rest.Limit -= min(len(list), p.Limit)
		authenticators, err := o.oathsOf(ctx, tx, rest)
		for _, d := range authenticators {
			list = append(list, d.Credential())
		}
		return err
	})
	return list, err
}

// isAuthenticator reports whether an ID is that of an authenticator. It fails with
// [postern.NotFound] if it is that of nothing.
func (tx *Tx) isAuthenticator(ctx context.Context, id string) (bool, error) {
	var kind string
	err := tx.QueryRow(ctx, `SELECT kind FROM credentials
		WHERE kind IN ('yubikey', 'totp', 'hotp') AND id = $1`, id).Scan(&kind)
	return kind != string(postern.YubiKey), notFound(err, "there is no key or authenticator %q", id)
}

// Credential returns the YubiKey of a public ID, or the authenticator of an ID.
func (o *OTP) Credential(ctx context.Context, id string) (c otp.Credential, err error) {
	err = o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		authenticator, err := tx.isAuthenticator(ctx, id)
		if err != nil {
			return err
		}
		if !authenticator {
			k, err := o.scanKey(tx.QueryRow(ctx, `SELECT `+otpKeyColumns+otpKeyTables+`c.id = $1`, id).Scan)
			if err == nil {
				c = k.Credential()
			}
			return err
		}
		d, err := o.scanOATH(tx.QueryRow(ctx, oathColumns+`WHERE c.id = $1`, id).Scan)
		if err == nil {
			c = d.Credential()
		}
		return err
	})
	if e, ok := errors.AsType[*postern.Error](err); ok && e.Code == postern.NotFound {
		err = e.WithHint("list the keys and authenticators")
	}
	return c, err
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
