package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"maps"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// RevokeCertificate implements [ca.Store].
func (s CA) RevokeCertificate(
	ctx context.Context, serial string, reason postern.RevocationReason, at time.Time, event postern.Event,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.revokeCertificate(ctx, serial, reason, at); err != nil {
			return err
		}
		return tx.Append(ctx, event)
	})
}

func (tx *Tx) revokeCertificate(
	ctx context.Context, serial string, reason postern.RevocationReason, at time.Time,
) error {
	n, err := tx.revokeCertificates(ctx, "serial", serial, reason, at)
	if err == nil && n == 0 {
		err = postern.Errorf(postern.Conflict, "certificate %s is revoked already, or was never issued", serial)
	}
	return err
}

// RevokeIssuer implements [ca.Store].
func (s CA) RevokeIssuer(
	ctx context.Context, id, serial string, reason, theirs postern.RevocationReason, at time.Time, event postern.Event,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.revokeCertificate(ctx, serial, reason, at); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE ca_issuers SET revoked = $2 WHERE id = $1`, id, micros(at)); err != nil {
			return err
		}
		n, err := tx.revokeCertificates(ctx, "issuer", id, theirs, at)
		if err != nil {
			return err
		}
		e := event
		e.Details = maps.Clone(event.Details)
		if e.Details == nil {
			e.Details = map[string]string{}
		}
		e.Details["certificates"] = strconv.FormatInt(n, 10)
		return tx.Append(ctx, e)
	})
}

// IssuedBy reports whether the CA with that certificate (DER) issued the serial
// number and, if so, whether it was revoked or retired itself: who has its key could sign with
// the serial number of a certificate that has expired.
func (tx *Tx) IssuedBy(ctx context.Context, serial string, issuer []byte) (issued, ended bool, err error) {
	var certificate []byte
	var at int64
	err = tx.QueryRow(ctx, `SELECT i.certificate, i.revoked + i.retired FROM ca_certificates c
		JOIN ca_issuers i ON i.id = c.issuer WHERE c.serial = $1`, serial).Scan(&certificate, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	return err == nil && bytes.Equal(certificate, issuer), at != 0, err
}

// revokeCertificates revokes the certificates that are not yet revoked and whose
// column, "serial", "person", "host" or "issuer", has a value, and returns how many there
// were. A person's are the client certificates, an issuer's those of others than
// itself.
func (tx *Tx) revokeCertificates(
	ctx context.Context, column, value string, reason postern.RevocationReason, at time.Time,
) (int64, error) {
	where := column + ` = $1 AND revoked = 0`
	if column == "person" {
		where += ` AND person <> '' AND profile = 'client'`
	}
	if column == "issuer" {
		where += ` AND profile <> 'ocsp'`
	}
	if column == "host" {
		where = `serial IN (SELECT serial FROM host_certificates WHERE host = $1) AND revoked = 0`
	}
	if _, err := tx.Exec(ctx, `UPDATE credentials SET status = 'revoked'
		WHERE kind = $2 AND id IN (SELECT serial FROM ca_certificates WHERE `+where+`)`,
		value, string(postern.X509Certificate)); err != nil {
		return 0, err
	}
	// So do the links that were made with the certificate.
	if _, err := tx.Exec(ctx, `DELETE FROM portal_links WHERE purpose = 'enrol' AND used = 0 AND person IN (
		SELECT person FROM ca_certificates WHERE `+where+` AND profile = 'client')`, value); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `UPDATE ca_issuers SET revision = revision + 1
		WHERE id IN (SELECT issuer FROM ca_certificates WHERE `+where+`)`, value); err != nil {
		return 0, err
	}
	n, err := tx.Exec(ctx, `UPDATE ca_certificates SET revoked = $2, reason = $3,
		revision = (SELECT i.revision FROM ca_issuers i WHERE i.id = ca_certificates.issuer)
		WHERE `+where, value, micros(at), int64(reason))
	if err != nil || n == 0 {
		return n, err
	}
	return n, tx.Touch(ctx)
}

// Revision implements [ca.Store].
func (s CA) Revision(ctx context.Context, issuer string) (int64, error) {
	var n int64
	err := s.row(ctx, `SELECT revision FROM ca_issuers WHERE id = $1`, issuer).Scan(&n)
	return n, s.wrap(notFound(err, "there is no CA %q", issuer), "read a CA's revision")
}

// Revocations implements [ca.Store].
func (s CA) Revocations(
	ctx context.Context, issuer string, expireAfter time.Time, since int64,
) (list []ca.Revocation, revision int64, err error) {
	err = s.Read(ctx, func(ctx context.Context, tx *Tx) error {
		list = nil
		if err := tx.QueryRow(ctx, `SELECT revision FROM ca_issuers
			WHERE id = $1`, issuer).Scan(&revision); err != nil {
			return notFound(err, "there is no CA %q", issuer)
		}
		rows, err := tx.Query(ctx, `SELECT serial, revoked, reason, revision FROM ca_certificates
			WHERE issuer = $1 AND revision > $2 AND revoked <> 0 AND not_after > $3
			ORDER BY revoked, serial`, issuer, since, micros(expireAfter))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r ca.Revocation
			var at int64
			if err := rows.Scan(&r.Serial, &at, &r.Reason, &r.Revision); err != nil {
				return err
			}
			r.Time = fromMicros(at)
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, revision, err
}

// CRL implements [ca.Store].
func (s CA) CRL(ctx context.Context, issuer string, known int64) (ca.CRL, error) {
	crl := ca.CRL{Issuer: issuer}
	var this, next, complete int64
	err := s.row(ctx, `SELECT number, revision, CASE WHEN number <> $2 THEN der END, this_update, next_update,
		complete FROM ca_crls WHERE issuer = $1`, issuer, known).
		Scan(&crl.Number, &crl.Revision, &crl.DER, &this, &next, &complete)
	crl.ThisUpdate, crl.NextUpdate, crl.Complete = fromMicros(this), fromMicros(next), fromMicros(complete)
	return crl, s.wrap(notFound(err, "no revocation list of %q was signed yet", issuer), "read a revocation list")
}

// PutCRL implements [ca.Store].
func (s CA) PutCRL(ctx context.Context, crl ca.CRL) (bool, error) {
	var kept bool
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ca_crls (issuer, number, revision, der, this_update, next_update, complete)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (issuer) DO UPDATE SET number = excluded.number, revision = excluded.revision,
				der = excluded.der, this_update = excluded.this_update, next_update = excluded.next_update,
				complete = excluded.complete
			WHERE ca_crls.number = excluded.number - 1`,
			crl.Issuer, crl.Number, crl.Revision, crl.DER, micros(crl.ThisUpdate), micros(crl.NextUpdate),
			micros(crl.Complete))
		kept = n == 1
		return err
	})
	return kept, err
}
