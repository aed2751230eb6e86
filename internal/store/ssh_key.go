package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/sign"
	"golang.org/x/crypto/ssh"
)

// EnrolSSHKey adds a person's SSH key, or replaces what is known of it, and appends the
// event. It fails with [postern.Denied] for a person who is not active, for a key that
// was revoked or disabled, and once the actor's credential is not valid; with [postern.Conflict] for
// another person's key.
func (s People) EnrolSSHKey(ctx context.Context, by postern.Actor, k sign.EnrolledKey, event postern.Event) error {
	fingerprint := ssh.FingerprintSHA256(k.Public)
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		c, err := tx.Credential(ctx, postern.SSHKey, fingerprint)
		switch {
		case err == nil && c.Status != postern.CredentialActive: // enabling it is another step
			return postern.Errorf(postern.Denied, "this SSH key is disabled").WithHint("enable it, or make a new key")
		case err != nil && postern.CodeOf(err) != postern.NotFound:
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO ssh_keys (fingerprint, public_key, attested, aaguid, maker, verify_required)
			SELECT $1, $2, $3, $4, $5, $6
			WHERE NOT EXISTS (SELECT 1 FROM ssh_revoked_keys WHERE fingerprint = $1)
			ON CONFLICT (fingerprint) DO UPDATE SET attested = excluded.attested, aaguid = excluded.aaguid,
			maker = excluded.maker, verify_required = excluded.verify_required`,
			fingerprint, k.Public.Marshal(), flag(k.Attested), k.AAGUID, k.Maker, flag(k.VerifyRequired))
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Denied, "the SSH key was revoked").WithHint("make a new key")
		}
		if err := tx.addHeld(ctx, postern.Credential{
			Kind: postern.SSHKey, ID: fingerprint, Person: k.Person, Label: k.Label,
		}); err != nil {
			return err
		}
		return tx.Append(ctx, event)
	})
}

// EnrolledSSHKey returns what is known of a person's SSH key; nothing for one that the
// person has not enrolled.
func (s People) EnrolledSSHKey(ctx context.Context, person string, key ssh.PublicKey) (sign.EnrolledKey, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (sign.EnrolledKey, error) {
		c, err := tx.Credential(ctx, postern.SSHKey, ssh.FingerprintSHA256(key))
		k := sign.EnrolledKey{Person: person, Public: key}
		switch {
		case postern.CodeOf(err) == postern.NotFound || err == nil && c.Person != person:
			return k, nil
		case err != nil:
			return k, err
		case c.Status != postern.CredentialActive:
			k.Disabled = true
			return k, nil
		}
		var attested, verify int64
		err = tx.QueryRow(ctx, `SELECT attested, aaguid, maker, verify_required FROM ssh_keys WHERE fingerprint = $1`,
			c.ID).Scan(&attested, &k.AAGUID, &k.Maker, &verify)
		if errors.Is(err, sql.ErrNoRows) { // a credential that was kept before its key was
			err = nil
		}
		k.Label, k.Enrolled, k.Attested, k.VerifyRequired = c.Label, true, attested == 1, verify == 1
		return k, err
	})
}
