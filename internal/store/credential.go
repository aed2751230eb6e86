package store

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// credentialColumns are a credential's. The last use of a YubiKey is kept with its
// counter, which is written at each use anyway.
const credentialColumns = `kind, id, COALESCE(person, ''), label, status, created, expires,
	COALESCE((SELECT u.used FROM otp_counters u
	WHERE credentials.kind = 'yubikey' AND u.public_id = credentials.id), last_used)`

// PutCredential adds a credential, or replaces the label, expiry and status of
// one that is there. It never changes whose it is, and never brings a revoked
// one back: both are [postern.Conflict]. A zero Created is now, an empty Status
// active.
func (tx *Tx) PutCredential(ctx context.Context, c postern.Credential) error {
	if c.Kind == "" || c.ID == "" || len(c.ID) > 256 || len(c.Label) > 256 {
		return postern.Errorf(postern.Invalid, "a credential needs a kind and an ID of at most 256 bytes")
	}
	if c.Status == "" {
		c.Status = postern.CredentialActive
	}
	if c.Created.IsZero() {
		c.Created = tx.db.Now()
	}
	person := sql.NullString{String: c.Person, Valid: c.Person != ""}
	n, err := tx.Exec(ctx, `INSERT INTO credentials (kind, id, person, label, status, created, expires, last_used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (kind, id) DO UPDATE SET label = excluded.label, status = excluded.status,
		expires = excluded.expires
		WHERE COALESCE(credentials.person, '') = COALESCE(excluded.person, '')
			AND (credentials.status <> 'revoked' OR excluded.status = 'revoked')`,
		string(c.Kind), c.ID, person, c.Label, string(c.Status), micros(c.Created), micros(c.Expires),
		micros(c.LastUsed))
	if err != nil {
		return err
	}
	if n == 0 {
		return postern.Errorf(postern.Conflict, "%s %s is revoked, or belongs to another person", c.Kind, c.ID)
	}
	return tx.Touch(ctx)
}

// Credential returns one credential, or [postern.NotFound].
func (tx *Tx) Credential(ctx context.Context, kind postern.CredentialKind, id string) (postern.Credential, error) {
	c, err := scanCredential(tx.QueryRow(ctx, `SELECT `+credentialColumns+` FROM credentials
		WHERE kind = $1 AND id = $2`, string(kind), id))
	return c, notFound(err, "there is no %s %q", kind, id)
}

// CredentialsOf returns a person's credentials, revoked ones included, in the order
// of kind and ID.
func (tx *Tx) CredentialsOf(ctx context.Context, person string) ([]postern.Credential, error) {
	rows, err := tx.Query(ctx, `SELECT `+credentialColumns+` FROM credentials WHERE person = $1`, person)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []postern.Credential
	for rows.Next() {
		c, err := scanCredential(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b postern.Credential) int {
		return strings.Compare(string(a.Kind)+" "+a.ID, string(b.Kind)+" "+b.ID)
	})
	return list, rows.Err()
}

// SetCredentialStatus disables, enables or revokes a credential. What is
// revoked stays so: anything else is [postern.Conflict] then.
func (tx *Tx) SetCredentialStatus(
	ctx context.Context, kind postern.CredentialKind, id string, status postern.CredentialStatus,
) error {
	n, err := tx.Exec(ctx, `UPDATE credentials SET status = $1
		WHERE kind = $2 AND id = $3 AND (status <> 'revoked' OR $1 = 'revoked')`,
		string(status), string(kind), id)
	if err != nil {
		return err
	}
	if n == 0 {
		if _, err := tx.Credential(ctx, kind, id); err != nil {
			return err
		}
		return postern.Errorf(postern.Conflict, "%s %s is revoked", kind, id)
	}
	if kind == postern.Passkey && status != postern.CredentialActive {
		if err := tx.dropLinksOfPasskey(ctx, id); err != nil {
			return err
		}
	}
	if status == postern.CredentialRevoked {
		if err := tx.revokeIssued(ctx, kind, id); err != nil {
			return err
		}
	}
	return tx.Touch(ctx)
}

// revokeIssued revokes the certificate behind a credential, so that CRL, OCSP
// and KRL say the same as the credential does.
func (tx *Tx) revokeIssued(ctx context.Context, kind postern.CredentialKind, id string) error {
	var err error
	switch kind {
	case postern.X509Certificate:
		_, err = tx.revokeCertificates(ctx, "serial", id, postern.Unspecified, tx.db.Now())
	case postern.SSHCertificate:
		var serial uint64
		if serial, err = strconv.ParseUint(id, 10, 63); err == nil {
			_, err = tx.revokeSSH(ctx, "serial", int64(serial), tx.db.Now())
		}
	}
	return err
}

// TouchCredential remembers that a credential was used at that time. It does
// not change the generation.
func (tx *Tx) TouchCredential(ctx context.Context, kind postern.CredentialKind, id string, used time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE credentials SET last_used = $1 WHERE kind = $2 AND id = $3 AND last_used < $1`,
		micros(used), string(kind), id)
	return err
}

// scanner is a row, or the rows of a query.
type scanner interface{ Scan(dest ...any) error }

func scanCredential(row scanner) (postern.Credential, error) {
	var c postern.Credential
	var created, expires, used int64
	err := row.Scan(&c.Kind, &c.ID, &c.Person, &c.Label, &c.Status, &created, &expires, &used)
	c.Created, c.Expires, c.LastUsed = fromMicros(created), fromMicros(expires), fromMicros(used)
	return c, err
}
