package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

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
	return s.People().Person(ctx, name)
}

// purposeCAKey is what a CA's sealed key is bound to, besides its ID.
const purposeCAKey = "ca.key"

// AddIssuers implements [ca.Store].
func (s CA) AddIssuers(
	ctx context.Context, issuers []ca.Issuer, certs []ca.Certificate, events ...postern.Event,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.addIssuers(ctx, issuers, certs, events) })
}

func (tx *Tx) addIssuers(
	ctx context.Context, issuers []ca.Issuer, certs []ca.Certificate, events []postern.Event,
) error {
	var position int64
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(position), 0) FROM ca_issuers`).Scan(&position); err != nil {
		return err
	}
	for _, i := range issuers {
		position++
		n, err := tx.Exec(ctx, `INSERT INTO ca_issuers (id, role, certificate, public_key, sealed_key, key_uri,
			created, position, revision, cross_signed)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9) ON CONFLICT DO NOTHING`,
			i.ID, string(i.Role), i.Certificate, i.PublicKey, i.Key, i.KeyURI, micros(i.Created), position, i.Cross)
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
}

// Issuers implements [ca.Store].
func (s CA) Issuers(ctx context.Context) ([]ca.Issuer, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.Issuer, error) {
		rows, err := tx.Query(ctx, `SELECT id, role, certificate, public_key, sealed_key, key_uri, created, revoked,
			retired, cross_signed FROM ca_issuers ORDER BY position`)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []ca.Issuer
		for rows.Next() {
			var i ca.Issuer
			var created, revoked, retired int64
			if err := rows.Scan(&i.ID, &i.Role, &i.Certificate, &i.PublicKey, &i.Key, &i.KeyURI, &created,
				&revoked, &retired, &i.Cross); err != nil {
				return nil, err
			}
			i.Created, i.Revoked, i.Retired = fromMicros(created), fromMicros(revoked), fromMicros(retired)
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
		_, err := tx.Exec(ctx, `INSERT INTO ca_settings (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
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

const certificateColumns = `serial, issuer, profile, person, label, subject, names, public_key, der, not_before,
	not_after, issued, renews, policy, revoked, reason`

const insertCertificate = `INSERT INTO ca_certificates (` + certificateColumns + `)
	SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, 0`

func certificateValues(c ca.Certificate) []any {
	return []any{
		c.Serial, c.Issuer, string(c.Profile), c.Person, c.Label, c.Subject, joinNames(c.Names), c.Key, c.DER,
		micros(c.NotBefore), micros(c.NotAfter), micros(c.Issued), c.Renews, string(c.Policy),
	}
}

// issueCertificate records a certificate, if its issuer and its key still count.
func (tx *Tx) issueCertificate(ctx context.Context, c ca.Certificate) error {
	n, err := tx.Exec(ctx, insertCertificate+`
		WHERE NOT EXISTS (SELECT 1 FROM ca_certificates WHERE public_key = $8 AND reason = 1)
			AND NOT EXISTS (SELECT 1 FROM ca_issuers WHERE id = $2 AND (revoked <> 0 OR retired <> 0)
				AND $3 <> 'ocsp')`,
		certificateValues(c)...)
	if err != nil || n == 1 {
		return err
	}
	var compromised, ended bool
	err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM ca_certificates
		WHERE public_key = $1 AND reason = 1), EXISTS (SELECT 1 FROM ca_issuers
		WHERE id = $2 AND (revoked <> 0 OR retired <> 0))`,
		c.Key, c.Issuer).Scan(&compromised, &ended)
	switch {
	case err != nil:
		return err
	case compromised:
		return ca.ErrKeyKnown
	case ended:
		return postern.Errorf(postern.Unavailable, "the %s CA was revoked or retired", c.Issuer).WithHint("try again")
	}
	return postern.Errorf(postern.Internal, "the certificate %s was not recorded", c.Serial)
}

// addHolder makes a certificate the credential of its person. Its key must not be
// in another person's certificate.
func (tx *Tx) addHolder(ctx context.Context, c ca.Certificate) error {
	var others int
	// A comparison with a parameter would have SQLite plan the query again each time.
	err := tx.QueryRow(ctx, `SELECT COUNT(DISTINCT person) FROM ca_certificates
		WHERE public_key = $1 AND profile = 'client'`, c.Key).Scan(&others)
	switch {
	case err != nil:
		return err
	case others > 1:
		return postern.Errorf(postern.Denied, "the key is in another person's certificate").
			WithHint("make a key of your own")
	}
	return tx.addHeld(ctx, postern.Credential{
		Kind: postern.X509Certificate, ID: c.Serial, Person: c.Person, Label: c.Label, Created: c.Issued,
		Expires: c.NotAfter,
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
		&notBefore, &notAfter, &issued, &c.Renews, &c.Policy, &revoked, &reason)
	c.Names = strings.Fields(names)
	c.NotBefore, c.NotAfter = fromMicros(notBefore), fromMicros(notAfter)
	c.Issued, c.Revoked, c.Reason = fromMicros(issued), fromMicros(revoked), postern.RevocationReason(reason)
	return c, err
}

// Certificate implements [ca.Store].
func (s CA) Certificate(ctx context.Context, serial string) (ca.Certificate, error) {
	c, err := scanCertificate(s.row(ctx, `SELECT `+certificateColumns+` FROM ca_certificates
		WHERE serial = $1`, serial))
	if errors.Is(err, sql.ErrNoRows) {
		return c, postern.Errorf(postern.NotFound, "no certificate %s was issued here", serial).
			WithHint("list the certificates to see their serial numbers")
	}
	return c, s.wrap(err, "read a certificate")
}

// Certificates implements [ca.Store].
func (s CA) Certificates(ctx context.Context, f ca.Filter) ([]ca.Certificate, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]ca.Certificate, error) {
		return tx.certificates(ctx, f)
	})
}

func (tx *Tx) certificates(ctx context.Context, f ca.Filter) (list []ca.Certificate, err error) {
	query, args := certificateQuery(f)
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c, err := scanCertificate(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
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
	if f.Leaves {
		add("profile NOT IN (%s, %s, %s)", string(ca.ProfileIntermediate), string(ca.ProfileCross),
			string(ca.ProfileOCSP))
	}
	if len(f.Issuers) > 0 {
		ids := make([]any, len(f.Issuers))
		for i, id := range f.Issuers {
			ids[i] = id
		}
		add("issuer IN ("+strings.Repeat("%s, ", len(ids)-1)+"%s)", ids...)
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
	query = `SELECT ` + certificateColumns + ` FROM ca_certificates
		WHERE ` + strings.Join(where, " AND ") + ` ORDER BY issued DESC, serial DESC`
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	return query, args
}
