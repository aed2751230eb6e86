package store

import (
	"context"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

// PutRecoveryCodes replaces all codes of a person.
func (s Portal) PutRecoveryCodes(
	ctx context.Context, by postern.Actor, person string, codes []portal.RecoveryCode, now time.Time, e postern.Event,
) error {
	return s.logged(ctx, by, e,
		func(ctx context.Context, tx *Tx) error { return tx.putCodes(ctx, person, codes, now) })
}

func (tx *Tx) putCodes(ctx context.Context, person string, codes []portal.RecoveryCode, now time.Time) error {
	if _, err := tx.dropCodes(ctx, person); err != nil {
		return err
	}
	for _, c := range codes {
		if _, err := tx.Exec(ctx, `INSERT INTO portal_codes (id, person, hash)
			VALUES ($1, $2, $3)`, c.ID, person, c.Hash[:]); err != nil {
			return err
		}
		if err := tx.PutCredential(ctx, postern.Credential{
			Kind: postern.RecoveryCode, ID: c.ID, Person: person, Created: now,
		}); err != nil {
			return err
		}
	}
	return nil
}

// dropCodes makes a person's recovery codes void, and returns how many there were.
func (tx *Tx) dropCodes(ctx context.Context, person string) (int64, error) {
	if _, err := tx.Exec(ctx, `UPDATE credentials SET status = 'revoked'
		WHERE kind = 'recovery' AND person = $1`, person); err != nil {
		return 0, err
	}
	return tx.Exec(ctx, `DELETE FROM portal_codes WHERE person = $1`, person)
}

// RecoveryCodes returns how many codes a person has left.
func (s Portal) RecoveryCodes(ctx context.Context, person string) (int, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (int, error) {
		var n int
		err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM portal_codes WHERE person = $1`, person).Scan(&n)
		return n, err
	})
}
