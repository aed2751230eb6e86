package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// SSHSerials implements [ca.Store].
func (s CA) SSHSerials(ctx context.Context, n int) (uint64, error) {
	var last int64
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `UPDATE counters SET value = value + $1 WHERE name = 'ssh-serial'
			RETURNING value`, n).Scan(&last)
	})
	return uint64(last - int64(n) + 1), err
}

const sshColumns = `serial, issuer, key_id, person, principals, fingerprint, certificate, valid_after, valid_before,
	issued, revoked`

// AddSSHCertificate implements [ca.Store].
func (s CA) AddSSHCertificate(ctx context.Context, by postern.Actor, c ca.SSHCertificate, event postern.Event) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ssh_certificates (`+sshColumns+`)
			SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0
			WHERE NOT EXISTS (SELECT 1 FROM ssh_revoked_keys WHERE fingerprint = $6)
				AND NOT EXISTS (SELECT 1 FROM ca_issuers WHERE id = $2 AND retired <> 0)`,
			int64(c.Serial), c.Issuer, c.KeyID, c.Person, strings.Join(c.Principals, "\n"), c.Fingerprint,
			c.Certificate,
			micros(c.ValidAfter), micros(c.ValidBefore), micros(c.Issued))
		if err != nil {
			return err
		}
		if n == 0 {
			return tx.notCertified(ctx, c)
		}
		if c.Person != "" {
			err := tx.addHeld(ctx, postern.Credential{
				Kind: postern.SSHCertificate, ID: strconv.FormatUint(c.Serial, 10), Person: c.Person,
				Created: c.Issued, Expires: c.ValidBefore,
			})
			if err != nil {
				return err
			}
		}
		return tx.Append(ctx, event)
	})
}

// notCertified says why a certificate was not recorded.
func (tx *Tx) notCertified(ctx context.Context, c ca.SSHCertificate) error {
	var retired bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM ca_issuers WHERE id = $1 AND retired <> 0)`,
		c.Issuer).Scan(&retired)
	switch {
	case err != nil:
		return err
	case retired:
		return postern.Errorf(postern.Unavailable, "the %s CA was retired", c.Issuer).WithHint("try again")
	}
	return postern.Errorf(postern.Denied, "the SSH key was revoked").WithHint("make a new key: ssh-keygen -t ed25519")
}

func scanSSHCertificate(row scanner) (ca.SSHCertificate, error) {
	var c ca.SSHCertificate
	var principals string
	var serial, after, before, issued, revoked int64
	err := row.Scan(&serial, &c.Issuer, &c.KeyID, &c.Person, &principals, &c.Fingerprint, &c.Certificate, &after,
		&before, &issued, &revoked)
	c.Serial, c.Principals = uint64(serial), strings.Split(principals, "\n")
	c.ValidAfter, c.ValidBefore = fromMicros(after), fromMicros(before)
	c.Issued, c.Revoked = fromMicros(issued), fromMicros(revoked)
	return c, err
}

// SSHCertificate implements [ca.Store].
func (s CA) SSHCertificate(ctx context.Context, serial uint64) (ca.SSHCertificate, error) {
	c, err := scanSSHCertificate(s.read.QueryRowContext(ctx, `SELECT `+sshColumns+` FROM ssh_certificates
		WHERE serial = $1`, int64(serial)))
	return c, s.wrap(notFound(err, "no SSH certificate %d was issued here", serial), "read an SSH certificate")
}

// SSHCertificates implements [ca.Store].
func (s CA) SSHCertificates(ctx context.Context, person string) ([]ca.SSHCertificate, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.SSHCertificate, error) {
		rows, err := tx.Query(ctx, `SELECT `+sshColumns+` FROM ssh_certificates WHERE person = $1 OR $1 = ''
			ORDER BY serial DESC`, person)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []ca.SSHCertificate
		for rows.Next() {
			c, err := scanSSHCertificate(rows)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
		return list, rows.Err()
	})
}

// RevokeSSHCertificate implements [ca.Store].
func (s CA) RevokeSSHCertificate(ctx context.Context, serial uint64, at time.Time, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.revokeSSH(ctx, "serial", int64(serial), at)
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Conflict, "SSH certificate %d is revoked already, or was never issued",
				serial)
		}
		return tx.Append(ctx, event)
	})
}

// revokeSSH revokes the certificates that are not yet revoked and whose column,
// "serial", "person" or "host", has a value, and returns how many there were.
func (tx *Tx) revokeSSH(ctx context.Context, column string, value any, at time.Time) (int64, error) {
	where := column + ` = $1 AND revoked = 0`
	if column == "host" { // the first of its principals, which is the key ID
		where = `key_id = $1 AND person = '' AND revoked = 0`
	}
	if _, err := tx.Exec(ctx, `UPDATE credentials SET status = 'revoked'
		WHERE kind = $2 AND id IN (SELECT CAST(serial AS TEXT) FROM ssh_certificates WHERE `+where+`)`,
		value, string(postern.SSHCertificate)); err != nil {
		return 0, err
	}
	n, err := tx.Exec(ctx, `UPDATE ssh_certificates SET revoked = $2 WHERE `+where, value, micros(at))
	if err != nil || n == 0 {
		return n, err
	}
	return n, tx.sshChanged(ctx)
}

// sshChanged says that the KRL has changed.
func (tx *Tx) sshChanged(ctx context.Context) error {
	if _, err := tx.Exec(ctx, `UPDATE counters SET value = value + 1 WHERE name = 'ssh-revision'`); err != nil {
		return err
	}
	return tx.Touch(ctx)
}

// RevokeSSHKey implements [ca.Store].
func (s CA) RevokeSSHKey(
	ctx context.Context, fingerprint string, key []byte, at time.Time, event postern.Event,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ssh_revoked_keys (fingerprint, public_key, revoked) VALUES ($1, $2, $3)
			ON CONFLICT DO NOTHING`,
			fingerprint, key, micros(at))
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Conflict, "SSH key %s is revoked already", fingerprint)
		}
		if _, err := tx.Exec(ctx, `UPDATE credentials SET status = 'revoked'
			WHERE kind = $1 AND id = $2`, string(postern.SSHKey), fingerprint); err != nil {
			return err
		}
		if err := tx.sshChanged(ctx); err != nil {
			return err
		}
		return tx.Append(ctx, event)
	})
}

// SSHRevoked implements [ca.Store].
func (s CA) SSHRevoked(
	ctx context.Context, now time.Time,
) (certs []ca.SSHRevocations, keys [][]byte, version int64, err error) {
	err = s.Read(ctx, func(ctx context.Context, tx *Tx) error {
		certs, keys = nil, nil
		if err := tx.QueryRow(ctx, `SELECT value FROM counters
			WHERE name = 'ssh-revision'`).Scan(&version); err != nil {
			return err
		}
		if err := tx.sshRevokedCerts(ctx, now, &certs); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT public_key FROM ssh_revoked_keys ORDER BY fingerprint`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key []byte
			if err := rows.Scan(&key); err != nil {
				return err
			}
			keys = append(keys, key)
		}
		return rows.Err()
	})
	return certs, keys, version, err
}

func (tx *Tx) sshRevokedCerts(ctx context.Context, now time.Time, certs *[]ca.SSHRevocations) error {
	rows, err := tx.Query(ctx, `SELECT issuer, serial FROM ssh_certificates WHERE valid_before > $1
		AND (revoked <> 0 OR person IN (SELECT name FROM people WHERE status = 'suspended'))
		ORDER BY issuer, serial`, micros(now))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var issuer string
		var serial int64
		if err := rows.Scan(&issuer, &serial); err != nil {
			return err
		}
		if n := len(*certs); n == 0 || (*certs)[n-1].Issuer != issuer {
			*certs = append(*certs, ca.SSHRevocations{Issuer: issuer})
		}
		last := &(*certs)[len(*certs)-1]
		last.Serials = append(last.Serials, uint64(serial))
	}
	return rows.Err()
}
