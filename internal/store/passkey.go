package store

import (
	"context"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/passkey"
)

// Passkeys stores people's passkeys; it implements [passkey.Store].
type Passkeys struct{ *DB }

// Passkeys returns the store of passkeys.
func (db *DB) Passkeys() Passkeys { return Passkeys{db} }

const passkeyColumns = `SELECT id, raw, public_key, counter, aaguid, transports, synced FROM passkeys `

func scanPasskey(row scanner) (k passkey.Passkey, err error) {
	var counter, synced int64
	var transports string
	err = row.Scan(&k.ID, &k.Raw, &k.PublicKey, &counter, &k.AAGUID, &transports, &synced)
	k.Counter, k.Synced, k.Transports = uint32(counter), synced == 1, strings.Fields(transports)
	return k, err
}

// PasskeysOf returns a person's passkeys that are not revoked.
func (s Passkeys) PasskeysOf(ctx context.Context, person string) ([]passkey.Passkey, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (list []passkey.Passkey, err error) {
		all, err := tx.CredentialsOf(ctx, person)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.Kind != postern.Passkey || c.Status == postern.CredentialRevoked {
				continue
			}
			k, err := scanPasskey(tx.QueryRow(ctx, passkeyColumns+`WHERE id = $1`, c.ID))
			if err != nil {
				return nil, err
			}
			k.Credential = c
			list = append(list, k)
		}
		return list, nil
	})
}

// Passkey returns one with its person, or [postern.NotFound].
func (s Passkeys) Passkey(ctx context.Context, id string) (k passkey.Passkey, p postern.Person, err error) {
	err = s.Read(ctx, func(ctx context.Context, tx *Tx) error {
		c, err := tx.Credential(ctx, postern.Passkey, id)
		if err != nil {
			return err
		}
		k, err = scanPasskey(tx.QueryRow(ctx, passkeyColumns+`WHERE id = $1`, id))
		if err != nil {
			return notFound(err, "there is no passkey %q", id)
		}
		k.Credential = c
		p, err = tx.Person(ctx, c.Person)
		return err
	})
	return k, p, err
}

// AddPasskey adds one to an active person, appends the event and uses the challenge.
func (s Passkeys) AddPasskey(ctx context.Context, by postern.Actor, k passkey.Passkey, u passkey.Use,
	e postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		if err := tx.useChallenge(ctx, u); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO passkeys (id, raw, public_key, counter, aaguid, transports, synced)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO NOTHING`, k.ID, k.Raw, k.PublicKey,
			int64(k.Counter), k.AAGUID, strings.Join(k.Transports, " "), flag(k.Synced))
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Conflict, "This passkey is registered already.")
		}
		if err := tx.addHeld(ctx, k.Credential); err != nil {
			return err
		}
		return tx.Append(ctx, e)
	})
}

// UsePasskey uses the challenge and stores the counter, see [passkey.Store].
func (s Passkeys) UsePasskey(ctx context.Context, id string, counter uint32, u passkey.Use) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.usePasskey(ctx, id, counter, u) })
}

func (tx *Tx) usePasskey(ctx context.Context, id string, counter uint32, u passkey.Use) error {
	if err := tx.useChallenge(ctx, u); err != nil {
		return err
	}
	c, err := tx.Credential(ctx, postern.Passkey, id)
	if err != nil {
		return err
	}
	p, err := tx.Person(ctx, c.Person)
	if err != nil {
		return err
	}
	if c.Status != postern.CredentialActive || !p.Active() {
		return postern.Errorf(postern.Denied, "This passkey is not accepted: it is disabled, or you are suspended.").
			WithHint("Ask an administrator.")
	}
	n, err := tx.Exec(ctx, `UPDATE passkeys SET counter = $1
		WHERE id = $2 AND (counter < $1 OR counter = 0 AND $1 = 0)`, int64(counter), id)
	switch {
	case err != nil:
		return err
	case n == 0:
		return postern.Errorf(postern.Denied, "This passkey may have been copied: its counter has gone back.").
			WithHint("Remove it, and make another one.")
	}
	return tx.TouchCredential(ctx, postern.Passkey, id, tx.db.Now())
}

// useChallenge fails with [postern.Denied] for a challenge that was used.
func (tx *Tx) useChallenge(ctx context.Context, u passkey.Use) error {
	n, err := tx.Exec(ctx, `INSERT INTO passkey_challenges (hash, expires) VALUES ($1, $2)
		ON CONFLICT (hash) DO NOTHING`, u.Challenge[:], micros(u.Expires))
	if err == nil && n == 0 {
		err = postern.Errorf(postern.Denied, "This request was answered before.").WithHint("Start again.")
	}
	return err
}

// dropLinksOfPasskey makes the unused links of a passkey's person void: they may have
// been made with it.
func (tx *Tx) dropLinksOfPasskey(ctx context.Context, id string) error {
	_, err := tx.Exec(ctx, `DELETE FROM portal_links WHERE purpose = 'enrol' AND used = 0
		AND person = (SELECT person FROM credentials WHERE kind = 'passkey' AND id = $1)`, id)
	return err
}

// RenamePasskey changes what its person calls a passkey. It fails with [postern.NotFound]
// unless the actor has that passkey, and it is not revoked.
func (s Passkeys) RenamePasskey(ctx context.Context, by postern.Actor, id, label string) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `UPDATE credentials SET label = $1
			WHERE kind = 'passkey' AND id = $2 AND person = $3 AND status <> 'revoked'`, label, id, by.Person)
		if err == nil && n == 0 {
			err = postern.Errorf(postern.NotFound, "You have no such passkey.")
		}
		return err
	})
}
