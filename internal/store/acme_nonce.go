package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"

	"github.com/postern-project/postern/internal/acme"
)

// NonceKey implements [acme.Store].
func (s ACME) NonceKey(ctx context.Context) ([32]byte, error) {
	var key [32]byte
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		var sealed []byte
		err := tx.QueryRow(ctx, `SELECT sealed FROM keys WHERE name = $1`, acmeNonceKey).Scan(&sealed)
		if errors.Is(err, sql.ErrNoRows) {
			var fresh [32]byte
			rand.Read(fresh[:])
			if sealed, err = s.Seal(purposeKey, acmeNonceKey, fresh[:]); err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `INSERT INTO keys (name, sealed, public, created)
				VALUES ($1, $2, '', $3)`, acmeNonceKey, sealed, micros(s.Now()))
		}
		if err != nil {
			return err
		}
		plain, err := s.Unseal(purposeKey, acmeNonceKey, sealed)
		copy(key[:], plain)
		return err
	})
	return key, err
}

// acmeNonceKey is the key of ACME nonces among the keys.
const acmeNonceKey = "acme.nonce"

// UseNonce implements [acme.Store].
func (s ACME) UseNonce(ctx context.Context, slot uint16, made int64) (bool, error) {
	var newer bool
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO acme_nonces (slot, made) VALUES ($1, $2)
			ON CONFLICT (slot) DO UPDATE SET made = excluded.made
			WHERE acme_nonces.made < excluded.made OR acme_nonces.made > excluded.made + $3`,
			int64(slot), made, acme.NonceReset.Microseconds())
		newer = n == 1
		return err
	})
	return newer, err
}
