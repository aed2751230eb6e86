package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
)

var _ acme.Store = ACME{}

// ACME keeps what the ACME server knows: it is its [acme.Store].
type ACME struct{ *DB }

// ACME returns the ACME server's part of the database.
func (db *DB) ACME() ACME { return ACME{db} }

// purposeACMEKey is what an external key's secret is bound to, besides its ID.
const purposeACMEKey = "acme.external"

// An account is read with the status of its person, and then with what a query
// asks for besides.
const (
	acmeAccountColumns = `SELECT a.id, a.thumbprint, a.public_key, a.contact, a.status, a.person,
		COALESCE(p.status, ''), a.binding, a.created`
	acmeAccountTables = ` FROM acme_accounts a LEFT JOIN people p ON p.name = a.person `
	acmeAccount       = acmeAccountColumns + acmeAccountTables
)

func scanACMEAccount(row *sql.Row, more ...any) (acme.Account, error) {
	var a acme.Account
	var contact string
	var created int64
	err := row.Scan(append([]any{
		&a.ID, &a.Thumbprint, &a.Key, &contact, &a.Status, &a.Person, &a.PersonStatus,
		(*[]byte)(&a.Binding), &created,
	}, more...)...)
	if contact != "" {
		a.Contact = strings.Split(contact, " ")
	}
	a.Created = fromMicros(created)
	return a, notFound(err, "there is no such account")
}

// AddAccount implements [acme.Store].
func (s ACME) AddAccount(
	ctx context.Context, a acme.Account, externalKey string, event postern.Event,
) (kept acme.Account, added bool, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		old, err := scanACMEAccount(tx.QueryRow(ctx, acmeAccount+`WHERE a.thumbprint = $1`, a.Thumbprint))
		if err == nil {
			kept, added = old, false
			return nil
		}
		if postern.CodeOf(err) != postern.NotFound {
			return err
		}
		kept, added = a, true
		if externalKey != "" {
			if kept.Person, err = tx.useACMEKey(ctx, externalKey, a.ID); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `INSERT INTO acme_accounts (id, thumbprint, public_key, contact, status, person,
			binding, created)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			a.ID, a.Thumbprint, a.Key, strings.Join(a.Contact, " "), a.Status, kept.Person, []byte(a.Binding),
			micros(a.Created))
		if err != nil {
			return err
		}
		e := event
		e.Person = kept.Person
		return tx.Append(ctx, e)
	})
	return kept, added, err
}

// useACMEKey marks an external key as used by an account and returns its
// person, who must be active.
func (tx *Tx) useACMEKey(ctx context.Context, key, account string) (string, error) {
	var person, used string
	var disabled int64
	err := tx.QueryRow(ctx, `SELECT person, account, disabled FROM acme_external_keys
		WHERE id = $1`, key).Scan(&person, &used, &disabled)
	switch {
	case errors.Is(err, sql.ErrNoRows), err == nil && disabled != 0:
		return "", postern.Errorf(postern.Denied, "the external account key is not good (any more)")
	case err != nil:
		return "", err
	case used != "":
		return "", postern.Errorf(postern.Denied,
			"the external account key has bound an account already: make another in the portal")
	}
	p, err := tx.Person(ctx, person)
	if err != nil {
		return "", err
	}
	if !p.Active() {
		return "", postern.Errorf(postern.Denied, "the person to whom the account belongs is %s", p.Status)
	}
	_, err = tx.Exec(ctx, `UPDATE acme_external_keys SET account = $1 WHERE id = $2`, account, key)
	return person, err
}

// Account implements [acme.Store].
func (s ACME) Account(ctx context.Context, id string) (acme.Account, error) {
	a, err := scanACMEAccount(s.row(ctx, acmeAccount+`WHERE a.id = $1`, id))
	return a, s.wrap(err, "read an ACME account")
}

// AccountAndOrder implements [acme.Store].
func (s ACME) AccountAndOrder(ctx context.Context, id, order string) (acme.Account, *acme.Order, error) {
	return s.acmeAccountAnd(ctx, acmeAccountColumns+`, o.document`+acmeAccountTables+
		`LEFT JOIN acme_orders o ON o.id = $2 WHERE a.id = $1`, id, order)
}

// AccountAndCertified implements [acme.Store]. A column that stands in the
// condition of an index, as serial does, is not compared with a bare parameter: for
// its value's sake SQLite would plan the query again each time.
func (s ACME) AccountAndCertified(ctx context.Context, id, serial string) (acme.Account, *acme.Order, error) {
	return s.acmeAccountAnd(ctx, acmeAccountColumns+`, o.document`+acmeAccountTables+
		`LEFT JOIN acme_orders o ON o.serial = $2 || '' AND o.serial <> '' WHERE a.id = $1`, id, serial)
}

// acmeAccountAnd compares the order's account here: in the query, it would tempt
// SQLite to look through all of the account's orders.
func (s ACME) acmeAccountAnd(ctx context.Context, query, id, key string) (acme.Account, *acme.Order, error) {
	var document []byte
	a, err := scanACMEAccount(s.row(ctx, query, id, key), &document)
	if err != nil || document == nil {
		return a, nil, s.wrap(err, "read an ACME account")
	}
	var o acme.Order
	if err := json.Unmarshal(document, &o); err != nil || o.Account != id {
		return a, nil, err
	}
	return a, &o, nil
}

// AccountByKey implements [acme.Store].
func (s ACME) AccountByKey(ctx context.Context, thumbprint string) (acme.Account, error) {
	a, err := scanACMEAccount(s.row(ctx, acmeAccount+`WHERE a.thumbprint = $1`, thumbprint))
	return a, s.wrap(err, "read an ACME account")
}

// UpdateAccount implements [acme.Store].
func (s ACME) UpdateAccount(
	ctx context.Context, id string, change func(*acme.Account) error, events ...postern.Event,
) (acme.Account, error) {
	var out acme.Account
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		a, err := scanACMEAccount(tx.QueryRow(ctx, acmeAccount+`WHERE a.id = $1`, id))
		if err != nil {
			return err
		}
		if err := change(&a); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE acme_accounts
			SET thumbprint = $1, public_key = $2, contact = $3, status = $4 WHERE id = $5`,
			a.Thumbprint, a.Key, strings.Join(a.Contact, " "), a.Status, id); err != nil {
			return err
		}
		out = a
		return tx.appendAll(ctx, events)
	})
	return out, err
}

func (tx *Tx) appendAll(ctx context.Context, events []postern.Event) error {
	for _, e := range events {
		if err := tx.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// AddExternalKey implements [acme.Store].
func (s ACME) AddExternalKey(ctx context.Context, by postern.Actor, k acme.ExternalKey, event postern.Event) error {
	sealed, err := s.Seal(purposeACMEKey, k.ID, k.Secret)
	if err != nil {
		return err
	}
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		p, err := tx.Person(ctx, k.Person)
		if err != nil {
			return err
		}
		if !p.Active() {
			return postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO acme_external_keys (id, person, label, sealed, account, disabled,
			created)
			VALUES ($1, $2, $3, $4, '', 0, $5)`, k.ID, k.Person, k.Label, sealed, micros(k.Created)); err != nil {
			return err
		}
		return tx.Append(ctx, event)
	})
}

// ExternalKey implements [acme.Store].
func (s ACME) ExternalKey(ctx context.Context, id string) (acme.ExternalKey, error) {
	k := acme.ExternalKey{ID: id}
	var sealed []byte
	var disabled, created int64
	err := s.read.QueryRowContext(ctx, `SELECT person, label, sealed, account, disabled, created
		FROM acme_external_keys WHERE id = $1`, id).
		Scan(&k.Person, &k.Label, &sealed, &k.Account, &disabled, &created)
	if err != nil {
		return k, s.wrap(notFound(err, "there is no such external account key"), "read an external account key")
	}
	k.Disabled, k.Created = disabled != 0, fromMicros(created)
	k.Secret, err = s.Unseal(purposeACMEKey, id, sealed)
	return k, err
}

// ExternalKeys implements [acme.Store].
func (s ACME) ExternalKeys(ctx context.Context, person string) ([]acme.ExternalKey, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]acme.ExternalKey, error) {
		rows, err := tx.Query(ctx, `SELECT id, person, label, account, disabled, created FROM acme_external_keys
			WHERE person = $1 ORDER BY created DESC, id`, person)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []acme.ExternalKey
		for rows.Next() {
			var k acme.ExternalKey
			var disabled, created int64
			if err := rows.Scan(&k.ID, &k.Person, &k.Label, &k.Account, &disabled, &created); err != nil {
				return nil, err
			}
			k.Disabled, k.Created = disabled != 0, fromMicros(created)
			list = append(list, k)
		}
		return list, rows.Err()
	})
}

// DisableExternalKey implements [acme.Store].
func (s ACME) DisableExternalKey(ctx context.Context, by postern.Actor, person, id string, event postern.Event) error {
	return s.setExternalKey(ctx, by, person, id, false, event)
}

// EnableExternalKey enables a person's key that was disabled, and with it the
// account that it bound, unless the account's holder has deactivated that.
func (s ACME) EnableExternalKey(ctx context.Context, by postern.Actor, person, id string, event postern.Event) error {
	return s.setExternalKey(ctx, by, person, id, true, event)
}

func (s ACME) setExternalKey(
	ctx context.Context, by postern.Actor, person, id string, enabled bool, event postern.Event,
) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		var account string
		err := tx.QueryRow(ctx, `UPDATE acme_external_keys SET disabled = $3 WHERE id = $1 AND person = $2
			RETURNING account`, id, person, flag(!enabled)).Scan(&account)
		if err != nil {
			return notFound(err, "there is no such external account key")
		}
		from, to := "valid", "revoked"
		if enabled {
			from, to = to, from
		}
		if _, err := tx.Exec(ctx, `UPDATE acme_accounts SET status = $1
			WHERE id = $2 AND status = $3`, to, account, from); err != nil {
			return err
		}
		return tx.Append(ctx, event)
	})
}

// AddOrder implements [acme.Store].
func (s ACME) AddOrder(ctx context.Context, o acme.Order, limit int) error {
	document, err := json.Marshal(&o)
	if err != nil {
		return err
	}
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		var open int
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM acme_orders
			WHERE account = $1 AND serial = '' AND expires > $2 AND status IN ('pending', 'ready')`,
			o.Account, micros(o.Created)).Scan(&open); err != nil {
			return err
		}
		if open >= limit {
			return postern.Errorf(postern.TooMany, "the account has %d unfinished orders", open)
		}
		if o.Replaces != "" {
			if err := tx.replaceableACME(ctx, o); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `INSERT INTO acme_orders (id, account, status, processing, serial, replaces, created,
			expires, document)
			VALUES ($1, $2, $3, 0, '', $4, $5, $6, $7)`, o.ID, o.Account, o.Status, o.Replaces, micros(o.Created),
			micros(o.Expires), document)
		return err
	})
}

// replaceableACME returns a Conflict if another order has a certificate in
// place of the one that o is to replace.
func (tx *Tx) replaceableACME(ctx context.Context, o acme.Order) error {
	var replaced int
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM acme_orders
		WHERE replaces = $1 AND serial <> '' AND id <> $2`, o.Replaces, o.ID).Scan(&replaced); err != nil {
		return err
	}
	if replaced > 0 {
		return postern.Errorf(postern.Conflict, "the certificate was replaced already")
	}
	return nil
}

func scanACMEOrder(scan func(...any) error) (acme.Order, error) {
	var document []byte
	var o acme.Order
	if err := scan(&document); err != nil {
		return o, notFound(err, "there is no such order")
	}
	return o, json.Unmarshal(document, &o)
}

// OrderBySerial implements [acme.Store].
func (s ACME) OrderBySerial(ctx context.Context, serial string) (acme.Order, error) {
	o, err := scanACMEOrder(s.row(ctx, `SELECT document FROM acme_orders
		WHERE serial = $1 || '' AND serial <> ''`, serial).Scan)
	return o, s.wrap(err, "read an order")
}

// ChangeOrder implements [acme.Store].
func (s ACME) ChangeOrder(
	ctx context.Context, id string, change func(*acme.Order) error, events ...postern.Event,
) (acme.Order, error) {
	var out acme.Order
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		if out, err = tx.changeACMEOrder(ctx, id, change); err != nil {
			return err
		}
		return tx.appendAll(ctx, events)
	})
	return out, err
}

func (tx *Tx) changeACMEOrder(ctx context.Context, id string, change func(*acme.Order) error) (acme.Order, error) {
	o, err := scanACMEOrder(tx.QueryRow(ctx, `SELECT document FROM acme_orders WHERE id = $1`, id).Scan)
	if err != nil {
		return o, err
	}
	if err := change(&o); err != nil {
		return o, err
	}
	if o.Replaces != "" && o.Serial != "" {
		if err := tx.replaceableACME(ctx, o); err != nil {
			return o, err
		}
	}
	document, err := json.Marshal(&o)
	if err != nil {
		return o, err
	}
	_, err = tx.Exec(ctx, `UPDATE acme_orders SET status = $1, processing = $2, serial = $3, document = $4
		WHERE id = $5`,
		o.Status, flag(o.Processing()), o.Serial, document, id)
	return o, err
}

// FinishOrder records a certificate, its event and the end of its order in one
// transaction.
func (s ACME) FinishOrder(
	ctx context.Context, by postern.Actor, c ca.Certificate, event postern.Event, f acme.Finish,
) (acme.Order, error) {
	var out acme.Order
	err := s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) (err error) {
		var finished postern.Event
		out, err = tx.changeACMEOrder(ctx, f.Order, func(o *acme.Order) error {
			a, err := scanACMEAccount(tx.QueryRow(ctx, acmeAccount+`WHERE a.id = $1`, o.Account))
			if err == nil {
				finished, err = f.Change(o, a, c.Serial)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := tx.Append(ctx, finished); err != nil {
			return err
		}
		return tx.addCertificate(ctx, c, event)
	})
	return out, err
}

// Orders implements [acme.Store].
func (s ACME) Orders(ctx context.Context, account, after string, limit int) ([]string, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]string, error) {
		before, last := int64(1<<62), ""
		if after != "" {
			err := tx.QueryRow(ctx, `SELECT created FROM acme_orders
				WHERE id = $1 AND account = $2`, after, account).Scan(&before)
			if err != nil {
				return nil, notFound(err, "there is no such order")
			}
			last = after
		}
		rows, err := tx.Query(ctx, `SELECT id FROM acme_orders
			WHERE account = $1 AND (created < $2 OR created = $2 AND id > $3)
			ORDER BY created DESC, id LIMIT $4`, account, before, last, limit)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var ids []string
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
		return ids, rows.Err()
	})
}

// acmeOrdersWhere returns the orders that a condition selects.
func (s ACME) acmeOrdersWhere(ctx context.Context, where string, args ...any) ([]acme.Order, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]acme.Order, error) {
		rows, err := tx.Query(ctx, `SELECT document FROM acme_orders WHERE `+where, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var list []acme.Order
		for rows.Next() {
			o, err := scanACMEOrder(rows.Scan)
			if err != nil {
				return nil, err
			}
			list = append(list, o)
		}
		return list, rows.Err()
	})
}

// Proved implements [acme.Store].
func (s ACME) Proved(ctx context.Context, account string, now time.Time) ([]string, error) {
	orders, err := s.acmeOrdersWhere(ctx, `account = $1 AND expires > $2`, account, micros(now))
	var names []string
	for _, o := range orders {
		for _, n := range o.Proved() {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names, err
}

// Processing implements [acme.Store].
func (s ACME) Processing(ctx context.Context) ([]acme.Order, error) {
	return s.acmeOrdersWhere(ctx, `processing = 1`)
}

// RemoveOrders implements [acme.Store].
func (s ACME) RemoveOrders(ctx context.Context, before time.Time) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM acme_orders WHERE expires < $1 AND serial = ''`,
			micros(before)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM acme_orders WHERE serial IN
			(SELECT serial FROM ca_certificates WHERE not_after > 0 AND not_after < $1)`, micros(before))
		return err
	})
}
