package store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/subtle"
	"os"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// ReadImport reads a file with what is to be imported, perhaps the SQLite database of
// another program.
func ReadImport(ctx context.Context, path string, o otp.ImportOptions) (*otp.Import, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	if magic, _ := in.Peek(16); !otp.IsSQLite(magic) {
		return otp.ReadImport(in, o)
	}
	text, err := DumpSQLite(ctx, path, otp.ImportedTables...)
	if err != nil {
		return nil, err
	}
	return otp.ReadImport(bytes.NewReader(text), o)
}

// Import takes over keys, authenticators, counters and API clients from
// elsewhere, all of it or nothing. A key or an authenticator that is known
// already is a [postern.Conflict] unless it is to be replaced, an API client
// always. Each authenticator has a person.
func (o *OTP) Import(ctx context.Context, im *otp.Import, replace bool) error {
	return o.write(ctx, postern.Actor{}, func(ctx context.Context, tx *Tx) error {
		for _, k := range im.Keys {
			if err := o.addKey(ctx, tx, k, replace); err != nil {
				return err
			}
		}
		for _, d := range im.OATH {
			if err := o.importOATH(ctx, tx, d, replace); err != nil {
				return err
			}
		}
		for _, c := range im.Counters {
			if err := raiseCounter(ctx, tx, c); err != nil {
				return err
			}
		}
		for _, id := range im.Disabled {
			if err := disableImported(ctx, tx, id); err != nil {
				return err
			}
		}
		for _, c := range im.Clients {
			if err := o.addClient(ctx, tx, c); err != nil {
				return err
			}
		}
		n := len(im.Keys) + len(im.OATH) + len(im.Counters) + len(im.Clients)
		if err := tx.Append(ctx, postern.Event{Kind: postern.EventOTPImported, Count: int64(n)}); err != nil {
			return err
		}
		return tx.Touch(ctx)
	})
}

// importOATH adds an authenticator. One that is known and to be replaced has
// the same secret, so only the last used code can be news.
func (o *OTP) importOATH(ctx context.Context, tx *Tx, d *otp.ImportedOATH, replace bool) error {
	same, err := o.sameOATH(ctx, tx, d.OATH)
	switch {
	case err != nil:
		return err
	case same == nil:
		return o.addOATH(ctx, tx, d.OATH)
	case !replace:
		return postern.Errorf(postern.Conflict, "%s: %w", d.Place, conflictOf(same))
	}
	_, err = tx.Exec(ctx, `UPDATE otp_oath SET moving = $3 WHERE kind = $1 AND id = $2 AND moving < $3`,
		string(same.Kind), same.ID, d.Moving)
	return err
}

// sameOATH returns the person's authenticator that has the same secret, if any.
func (o *OTP) sameOATH(ctx context.Context, tx *Tx, d *otp.OATH) (*otp.OATH, error) {
	all, err := o.oaths(ctx, tx, "", `c.person = $1`, d.Person)
	if err != nil {
		return nil, err
	}
	for _, known := range all {
		if known.Kind == d.Kind && subtle.ConstantTimeCompare(known.Secret, d.Secret) == 1 {
			return known, nil
		}
	}
	return nil, nil
}

// conflictOf says that an authenticator is known already.
func conflictOf(same *otp.OATH) error {
	return postern.Errorf(postern.Conflict, "%s has this %s already", same.Person, same.Kind)
}

// disableImported disables a key that was disabled where its counter comes
// from. The key must be known: else it would come back enabled later.
func disableImported(ctx context.Context, tx *Tx, publicID string) error {
	n, err := tx.Exec(ctx, `UPDATE credentials
		SET status = CASE WHEN status = 'active' THEN 'disabled' ELSE status END
		WHERE kind = 'yubikey' AND id = $1`, publicID)
	if err == nil && n == 0 {
		return postern.Errorf(postern.NotFound, "YubiKey %s is disabled there and not known here", publicID).
			WithHint("import the keys first, then the counters")
	}
	return err
}
