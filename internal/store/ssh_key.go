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
// was revoked, and once the actor's credential is not valid; with [postern.Conflict] for
// another person's key.
func (s People) EnrolSSHKey(ctx context.Context, by postern.Actor, k sign.EnrolledKey, event postern.Event) error {
	fingerprint := ssh.FingerprintSHA256(k.Public)
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ssh_keys (fingerprint, public_key, attested, aaguid, maker, verify_required)
			SELECT $1, $2, $3, $4, $5, $6
			WHERE NOT EXISTS (SELECT 1 FROM ssh_revoked_keys WHERE fingerprint = $1)
			ON CONFLICT (fingerprint) DO UPDATE SET attested = excluded.attested, aaguid = excluded.aaguid,
			maker = excluded.maker, verify_required = excluded.verify_required`,
			fingerprint, k.Public.Marshal(), bit(k.Attested), k.AAGUID, k.Maker, bit(k.VerifyRequired))
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

// EnrolledSSHKey returns what is known of a person's SSH key; what is known of none for
// one that is not enrolled, is another person's, or is disabled.
func (s People) EnrolledSSHKey(ctx context.Context, person string, key ssh.PublicKey) (sign.EnrolledKey, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (sign.EnrolledKey, error) {
		k := sign.EnrolledKey{Person: person, Public: key}
		var attested, verify int64
		err := tx.QueryRow(ctx, `SELECT c.label, k.attested, k.aaguid, k.maker, k.verify_required
			FROM ssh_keys k JOIN credentials c ON c.kind = $1 AND c.id = k.fingerprint
			WHERE k.fingerprint = $2 AND c.person = $3 AND c.status = 'active'`,
			string(postern.SSHKey), ssh.FingerprintSHA256(key), person).
			Scan(&k.Label, &attested, &k.AAGUID, &k.Maker, &verify)
		if errors.Is(err, sql.ErrNoRows) {
			return k, nil
		}
		k.Enrolled, k.Attested, k.VerifyRequired = true, attested == 1, verify == 1
		return k, err
	})
}

// bit is a boolean in a column.
func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
