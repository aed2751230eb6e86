package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

// Proof returns a person's proof of a name, and creates it if there is none.
func (s Portal) Proof(ctx context.Context, person, name, value string) (portal.Proof, error) {
	p, err := s.proof(ctx, person, name)
	if !errors.Is(err, sql.ErrNoRows) {
		return p, err
	}
	if _, err := s.changed(ctx, postern.Actor{}, `INSERT INTO portal_proofs (person, name, value, method, proved,
		asked) VALUES ($1, $2, $3, '', 0, 0)
		ON CONFLICT (person, name) DO NOTHING`, person, name, value); err != nil {
		return p, err
	}
	return s.proof(ctx, person, name)
}

func (s Portal) proof(ctx context.Context, person, name string) (portal.Proof, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (portal.Proof, error) {
		return scanProof(tx.QueryRow(ctx, `SELECT person, name, value, method, proved, asked FROM portal_proofs
			WHERE person = $1 AND name = $2`, person, name))
	})
}

func scanProof(row scanner) (portal.Proof, error) {
	var p portal.Proof
	var proved, asked int64
	err := row.Scan(&p.Person, &p.Name, &p.Value, &p.Method, &proved, &asked)
	p.Proved, p.Asked = fromMicros(proved), fromMicros(asked)
	return p, err
}

// PutProof changes how and when a name was proved, and whether it was asked for.
func (s Portal) PutProof(ctx context.Context, by postern.Actor, p portal.Proof, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error { return tx.putProof(ctx, p) })
}

func (tx *Tx) putProof(ctx context.Context, p portal.Proof) error {
	_, err := tx.Exec(ctx, `UPDATE portal_proofs SET method = $1, proved = $2, asked = $3
		WHERE person = $4 AND name = $5`,
		string(p.Method), micros(p.Proved), micros(p.Asked), p.Person, p.Name)
	return err
}

// AskedProofs returns the names that wait for an administrator, oldest first.
func (s Portal) AskedProofs(ctx context.Context) ([]portal.Proof, error) {
	return readRows(ctx, s.DB, scanProof, `SELECT person, name, value, method, proved, asked FROM portal_proofs
		WHERE asked <> 0 ORDER BY asked, person, name`)
}

const orderColumns = `id, person, names, csr, created, expires, serial`

// PutOrder opens an order.
func (s Portal) PutOrder(ctx context.Context, by postern.Actor, o portal.Order) error {
	csr := o.CSR
	if csr == nil {
		csr = []byte{}
	}
	_, err := s.changed(ctx, by, `INSERT INTO portal_orders (`+orderColumns+`) VALUES ($1, $2, $3, $4, $5, $6, '')`,
		o.ID, o.Person, strings.Join(o.Names, "\n"), csr, micros(o.Created), micros(o.Expires))
	return err
}

func scanOrder(row scanner) (portal.Order, error) {
	var o portal.Order
	var names string
	var created, expires int64
	err := row.Scan(&o.ID, &o.Person, &names, &o.CSR, &created, &expires, &o.Serial)
	o.Names, o.Created, o.Expires = strings.Split(names, "\n"), fromMicros(created), fromMicros(expires)
	return o, err
}

// Order returns one order.
func (s Portal) Order(ctx context.Context, id string) (portal.Order, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (portal.Order, error) {
		o, err := scanOrder(tx.QueryRow(ctx, `SELECT `+orderColumns+` FROM portal_orders WHERE id = $1`, id))
		return o, notFound(err, "there is no such order")
	})
}

// OrdersOf returns a person's open orders, newest first.
func (s Portal) OrdersOf(ctx context.Context, person string, now time.Time) ([]portal.Order, error) {
	return readRows(ctx, s.DB, scanOrder, `SELECT `+orderColumns+` FROM portal_orders
		WHERE person = $1 AND serial = '' AND expires > $2 ORDER BY created DESC, id`, person, micros(now))
}

// DropOrder forgets an order.
func (s Portal) DropOrder(ctx context.Context, by postern.Actor, id string) error {
	_, err := s.changed(ctx, by, `DELETE FROM portal_orders WHERE id = $1`, id)
	return err
}

// Allowed returns the administrators' list of names.
func (s Portal) Allowed(ctx context.Context) ([]portal.Allowed, error) {
	return readRows(ctx, s.DB, func(row scanner) (portal.Allowed, error) {
		var a portal.Allowed
		var created int64
		err := row.Scan(&a.Pattern, &a.Person, &a.By, &created)
		a.Created = fromMicros(created)
		return a, err
	}, `SELECT pattern, person, added, created FROM portal_allowed ORDER BY pattern, person`)
}

// PutAllowed adds to the list, and takes the names that it covers off the wishes.
func (s Portal) PutAllowed(ctx context.Context, by postern.Actor, a portal.Allowed, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO portal_allowed (pattern, person, added, created)
			VALUES ($1, $2, $3, $4)
			ON CONFLICT (pattern, person) DO NOTHING`, a.Pattern, a.Person, a.By, micros(a.Created)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE portal_proofs SET asked = 0
			WHERE name = $1 AND ($2 = '' OR person = $2)`, a.Pattern, a.Person)
		return err
	})
}

// DropAllowed takes from the list.
func (s Portal) DropAllowed(ctx context.Context, by postern.Actor, pattern, person string, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM portal_allowed WHERE pattern = $1 AND person = $2`, pattern, person)
		if err == nil && n == 0 {
			err = postern.Errorf(postern.NotFound, "These names are not on the list.")
		}
		return err
	})
}
