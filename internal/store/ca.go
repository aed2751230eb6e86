package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

var _ ca.Store = CA{}

// CA keeps what the certificate authority knows: it is its [ca.Store].
type CA struct{ *DB }

// CA returns the certificate authority's part of the database.
func (db *DB) CA() CA { return CA{db} }

// Person implements [ca.Store].
func (s CA) Person(ctx context.Context, name string) (postern.Person, error) {
	return People{s.DB}.Person(ctx, name)
}

// purposeCAKey is what a CA's sealed key is bound to, besides its ID.
const purposeCAKey = "ca.key"

// AddIssuers implements [ca.Store].
func (s CA) AddIssuers(ctx context.Context, issuers []ca.Issuer, certs []ca.Certificate, events ...postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		var position int64
		if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(position), 0) FROM ca_issuers`).Scan(&position); err != nil {
			return err
		}
		for _, i := range issuers {
			position++
			n, err := tx.Exec(ctx, `INSERT INTO ca_issuers (id, role, certificate, public_key, sealed_key, key_uri, created, position, revision)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0) ON CONFLICT DO NOTHING`,
				i.ID, string(i.Role), i.Certificate, i.PublicKey, i.Key, i.KeyURI, micros(i.Created), position)
			if err != nil {
				return err
			}
			if n == 0 {
				return postern.Errorf(postern.Conflict, "there is a CA %q already", i.ID)
			}
		}
		for _, c := range certs {
			if _, err := tx.Exec(ctx, insertCertificate, certificateValues(c)...); err != nil {
				return err
			}
		}
		for _, e := range events {
			if err := tx.Append(ctx, e); err != nil {
				return err
			}
		}
		return tx.Touch(ctx)
	})
}

// Issuers implements [ca.Store].
func (s CA) Issuers(ctx context.Context) ([]ca.Issuer, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.Issuer, error) {
		rows, err := tx.Query(ctx, `SELECT id, role, certificate, public_key, sealed_key, key_uri, created, revoked FROM ca_issuers ORDER BY position`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []ca.Issuer
		for rows.Next() {
			var i ca.Issuer
			var created, revoked int64
			if err := rows.Scan(&i.ID, &i.Role, &i.Certificate, &i.PublicKey, &i.Key, &i.KeyURI, &created, &revoked); err != nil {
				return nil, err
			}
			i.Created, i.Revoked = fromMicros(created), fromMicros(revoked)
			list = append(list, i)
		}
		return list, rows.Err()
	})
}

// SetIssuerKey implements [ca.Store].
func (s CA) SetIssuerKey(ctx context.Context, id string, sealed []byte, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `UPDATE ca_issuers SET sealed_key = $1 WHERE id = $2`, sealed, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.NotFound, "there is no CA %q", id)
		}
		if err := tx.Append(ctx, event); err != nil {
			return err
		}
		return tx.Touch(ctx)
	})
}

// CASetting implements [ca.Store].
func (s CA) CASetting(ctx context.Context, name string) (string, error) {
	var value string
	err := s.row(ctx, `SELECT value FROM ca_settings WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, s.wrap(err, "read a setting")
}

// SetCASetting implements [ca.Store].
func (s CA) SetCASetting(ctx context.Context, name, value string) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO ca_settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
		if err != nil {
			return err
		}
		return tx.Touch(ctx)
	})
}

// AddCertificate implements [ca.Store].
func (s CA) AddCertificate(ctx context.Context, by postern.Actor, c ca.Certificate, event postern.Event) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error { return tx.addCertificate(ctx, c, event) })
}

// addCertificate records a certificate with its event.
func (tx *Tx) addCertificate(ctx context.Context, c ca.Certificate, event postern.Event) error {
	if err := tx.issueCertificate(ctx, c); err != nil {
		return err
	}
	if c.Profile == ca.ProfileClient {
		if err := tx.addHolder(ctx, c); err != nil {
			return err
		}
	}
	return tx.Append(ctx, event)
}

// addHeld gives a credential to a person who must be active.
func (tx *Tx) addHeld(ctx context.Context, c postern.Credential) error {
	p, err := tx.Person(ctx, c.Person)
	if err != nil {
		return err
	}
	if !p.Active() {
		return postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	return tx.PutCredential(ctx, c)
}

const certificateColumns = `serial, issuer, profile, person, label, subject, names, public_key, der, not_before, not_after, issued, renews, revoked, reason`

const insertCertificate = `INSERT INTO ca_certificates (` + certificateColumns + `) SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 0, 0`

func certificateValues(c ca.Certificate) []any {
	return []any{
		c.Serial, c.Issuer, string(c.Profile), c.Person, c.Label, c.Subject, joinNames(c.Names), c.Key, c.DER,
		micros(c.NotBefore), micros(c.NotAfter), micros(c.Issued), c.Renews,
	}
}

// issueCertificate records a certificate, if its issuer and its key still count.
func (tx *Tx) issueCertificate(ctx context.Context, c ca.Certificate) error {
	n, err := tx.Exec(ctx, insertCertificate+`
		WHERE NOT EXISTS (SELECT 1 FROM ca_certificates WHERE public_key = $8 AND reason = 1)
			AND NOT EXISTS (SELECT 1 FROM ca_issuers WHERE id = $2 AND revoked <> 0 AND $3 <> 'ocsp')`,
		certificateValues(c)...)
	if err != nil || n == 1 {
		return err
	}
	var compromised, revoked bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM ca_certificates WHERE public_key = $1 AND reason = 1), EXISTS (SELECT 1 FROM ca_issuers WHERE id = $2 AND revoked <> 0)`,
		c.Key, c.Issuer).Scan(&compromised, &revoked)
	switch {
	case err != nil:
		return err
	case compromised:
		return ca.ErrKeyKnown
	case revoked:
		return postern.Errorf(postern.Unavailable, "the %s CA was revoked", c.Issuer).WithHint("try again")
	}
	return postern.Errorf(postern.Internal, "the certificate %s was not recorded", c.Serial)
}

// addHolder makes a certificate the credential of its person. Its key must not be
// in another person's certificate.
func (tx *Tx) addHolder(ctx context.Context, c ca.Certificate) error {
	var others int
	// A comparison with a parameter would have SQLite plan the query again each time.
	err := tx.QueryRow(ctx, `SELECT COUNT(DISTINCT person) FROM ca_certificates WHERE public_key = $1 AND profile = 'client'`, c.Key).Scan(&others)
	switch {
	case err != nil:
		return err
	case others > 1:
		return postern.Errorf(postern.Denied, "the key is in another person's certificate").WithHint("make a key of your own")
	}
	return tx.addHeld(ctx, postern.Credential{
		Kind: postern.X509Certificate, ID: c.Serial, Person: c.Person, Label: c.Label, Created: c.Issued, Expires: c.NotAfter,
	})
}

// joinNames writes names so that one can be looked for between spaces.
func joinNames(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return " " + strings.Join(list, " ") + " "
}

func scanCertificate(row scanner) (ca.Certificate, error) {
	var c ca.Certificate
	var names string
	var notBefore, notAfter, issued, revoked, reason int64
	err := row.Scan(&c.Serial, &c.Issuer, &c.Profile, &c.Person, &c.Label, &c.Subject, &names, &c.Key, &c.DER,
		&notBefore, &notAfter, &issued, &c.Renews, &revoked, &reason)
	c.Names = strings.Fields(names)
	c.NotBefore, c.NotAfter = fromMicros(notBefore), fromMicros(notAfter)
	c.Issued, c.Revoked, c.Reason = fromMicros(issued), fromMicros(revoked), postern.RevocationReason(reason)
	return c, err
}

// Certificate implements [ca.Store].
func (s CA) Certificate(ctx context.Context, serial string) (ca.Certificate, error) {
	c, err := scanCertificate(s.row(ctx, `SELECT `+certificateColumns+` FROM ca_certificates WHERE serial = $1`, serial))
	if errors.Is(err, sql.ErrNoRows) {
		return c, postern.Errorf(postern.NotFound, "no certificate %s was issued here", serial).WithHint("list the certificates to see their serial numbers")
	}
	return c, s.wrap(err, "read a certificate")
}

// Certificates implements [ca.Store].
func (s CA) Certificates(ctx context.Context, f ca.Filter) ([]ca.Certificate, error) {
	query, args := certificateQuery(f)
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.Certificate, error) {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []ca.Certificate
		for rows.Next() {
			c, err := scanCertificate(rows)
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
		return list, rows.Err()
	})
}

func certificateQuery(f ca.Filter) (query string, args []any) {
	where := []string{"1 = 1"}
	add := func(condition string, values ...any) {
		marks := make([]any, len(values))
		for i, v := range values {
			args = append(args, v)
			marks[i] = fmt.Sprintf("$%d", len(args))
		}
		where = append(where, fmt.Sprintf(condition, marks...))
	}
	if f.Person != "" {
		add("person = %s AND person <> ''", f.Person)
	}
	if f.Profile != "" {
		add("profile = %s", string(f.Profile))
	}
	if f.Name != "" {
		escape := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
		add(`names LIKE %s ESCAPE '\'`, "% "+escape.Replace(f.Name)+" %")
	}
	if f.Key != "" {
		add("public_key = %s", f.Key)
	}
	if f.Reason != 0 {
		add("reason = %s", int64(f.Reason))
	}
	if !f.Valid.IsZero() {
		add("revoked = 0 AND not_after > %s", micros(f.Valid))
	}
	if f.After != "" {
		add("(issued, serial) < (SELECT issued, serial FROM ca_certificates WHERE serial = %s)", f.After)
	}
	query = `SELECT ` + certificateColumns + ` FROM ca_certificates WHERE ` + strings.Join(where, " AND ") + ` ORDER BY issued DESC, serial DESC`
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	return query, args
}

// RevokeCertificate implements [ca.Store].
func (s CA) RevokeCertificate(ctx context.Context, serial string, reason postern.RevocationReason, at time.Time, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.revokeCertificate(ctx, serial, reason, at); err != nil {
			return err
		}
		return tx.Append(ctx, event)
	})
}

func (tx *Tx) revokeCertificate(ctx context.Context, serial string, reason postern.RevocationReason, at time.Time) error {
	n, err := tx.revokeCertificates(ctx, "serial", serial, reason, at)
	if err == nil && n == 0 {
		err = postern.Errorf(postern.Conflict, "certificate %s is revoked already, or was never issued", serial)
	}
	return err
}

// RevokeIssuer implements [ca.Store].
func (s CA) RevokeIssuer(ctx context.Context, id, serial string, reason, theirs postern.RevocationReason, at time.Time, event postern.Event) error {
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
// number and, if so, whether it was revoked itself.
func (tx *Tx) IssuedBy(ctx context.Context, serial string, issuer []byte) (issued, revoked bool, err error) {
	var certificate []byte
	var at int64
	err = tx.QueryRow(ctx, `SELECT i.certificate, i.revoked FROM ca_certificates c JOIN ca_issuers i ON i.id = c.issuer WHERE c.serial = $1`, serial).Scan(&certificate, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	return err == nil && bytes.Equal(certificate, issuer), at != 0, err
}

// revokeCertificates revokes the certificates that are not yet revoked and whose
// column, "serial", "person" or "issuer", has a value, and returns how many there
// were. A person's are the client certificates, an issuer's those of others than
// itself.
func (tx *Tx) revokeCertificates(ctx context.Context, column, value string, reason postern.RevocationReason, at time.Time) (int64, error) {
	where := column + ` = $1 AND revoked = 0`
	if column == "person" {
		where += ` AND person <> '' AND profile = 'client'`
	}
	if column == "issuer" {
		where += ` AND profile <> 'ocsp'`
	}
	if _, err := tx.Exec(ctx, `UPDATE credentials SET status = 'revoked' WHERE kind = $2 AND id IN (SELECT serial FROM ca_certificates WHERE `+where+`)`,
		value, string(postern.X509Certificate)); err != nil {
		return 0, err
	}
	// So do the links that were made with the certificate.
	if _, err := tx.Exec(ctx, `DELETE FROM portal_links WHERE purpose = 'enrol' AND used = 0 AND person IN (
		SELECT person FROM ca_certificates WHERE `+where+` AND profile = 'client')`, value); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `UPDATE ca_issuers SET revision = revision + 1 WHERE id IN (SELECT issuer FROM ca_certificates WHERE `+where+`)`, value); err != nil {
		return 0, err
	}
	n, err := tx.Exec(ctx, `UPDATE ca_certificates SET revoked = $2, reason = $3 WHERE `+where, value, micros(at), int64(reason))
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
func (s CA) Revocations(ctx context.Context, issuer string, expireAfter time.Time) ([]ca.Revocation, int64, error) {
	var list []ca.Revocation
	var revision int64
	err := s.Read(ctx, func(ctx context.Context, tx *Tx) error {
		list = nil
		if err := tx.QueryRow(ctx, `SELECT revision FROM ca_issuers WHERE id = $1`, issuer).Scan(&revision); err != nil {
			return notFound(err, "there is no CA %q", issuer)
		}
		rows, err := tx.Query(ctx, `SELECT serial, revoked, reason FROM ca_certificates
			WHERE issuer = $1 AND revoked <> 0 AND not_after > $2 ORDER BY revoked, serial`, issuer, micros(expireAfter))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r ca.Revocation
			var at, reason int64
			if err := rows.Scan(&r.Serial, &at, &reason); err != nil {
				return err
			}
			r.Time, r.Reason = fromMicros(at), postern.RevocationReason(reason)
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, revision, err
}

// CRL implements [ca.Store].
func (s CA) CRL(ctx context.Context, issuer string) (ca.CRL, error) {
	crl := ca.CRL{Issuer: issuer}
	var this, next int64
	err := s.row(ctx, `SELECT number, revision, der, this_update, next_update FROM ca_crls WHERE issuer = $1`, issuer).
		Scan(&crl.Number, &crl.Revision, &crl.DER, &this, &next)
	crl.ThisUpdate, crl.NextUpdate = fromMicros(this), fromMicros(next)
	return crl, s.wrap(notFound(err, "no revocation list of %q was signed yet", issuer), "read a revocation list")
}

// PutCRL implements [ca.Store].
func (s CA) PutCRL(ctx context.Context, crl ca.CRL) (bool, error) {
	var kept bool
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ca_crls (issuer, number, revision, der, this_update, next_update)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (issuer) DO UPDATE SET number = excluded.number, revision = excluded.revision, der = excluded.der,
				this_update = excluded.this_update, next_update = excluded.next_update
			WHERE ca_crls.number = excluded.number - 1`,
			crl.Issuer, crl.Number, crl.Revision, crl.DER, micros(crl.ThisUpdate), micros(crl.NextUpdate))
		kept = n == 1
		return err
	})
	return kept, err
}

// AddAPIToken implements [ca.Store].
func (s CA) AddAPIToken(ctx context.Context, t ca.APIToken, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `INSERT INTO ca_tokens (name, hash, domains, created, expires) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			t.Name, t.Hash, strings.Join(t.Domains, " "), micros(t.Created), micros(t.Expires))
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.Conflict, "there is a token %q already", t.Name)
		}
		return tx.Append(ctx, event)
	})
}

const tokenColumns = `name, hash, domains, created, expires`

func scanToken(row scanner) (ca.APIToken, error) {
	var t ca.APIToken
	var domains string
	var created, expires int64
	err := row.Scan(&t.Name, &t.Hash, &domains, &created, &expires)
	t.Domains, t.Created, t.Expires = strings.Fields(domains), fromMicros(created), fromMicros(expires)
	return t, err
}

// APIToken implements [ca.Store].
func (s CA) APIToken(ctx context.Context, hash []byte) (ca.APIToken, error) {
	t, err := scanToken(s.row(ctx, `SELECT `+tokenColumns+` FROM ca_tokens WHERE hash = $1`, hash))
	return t, s.wrap(notFound(err, "there is no such token"), "read a token")
}

// APITokens implements [ca.Store].
func (s CA) APITokens(ctx context.Context) ([]ca.APIToken, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.APIToken, error) {
		rows, err := tx.Query(ctx, `SELECT `+tokenColumns+` FROM ca_tokens ORDER BY created, name`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []ca.APIToken
		for rows.Next() {
			t, err := scanToken(rows)
			if err != nil {
				return nil, err
			}
			list = append(list, t)
		}
		return list, rows.Err()
	})
}

// RemoveAPIToken implements [ca.Store].
func (s CA) RemoveAPIToken(ctx context.Context, name string, event postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM ca_tokens WHERE name = $1`, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.NotFound, "there is no token %q", name)
		}
		return tx.Append(ctx, event)
	})
}
