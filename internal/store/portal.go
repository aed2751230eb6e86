package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

const (
	purposePortalMail = "portal mail" // sealed column portal_mail.sealed
	portalKeyName     = "portal"      // the portal's secret, in table keys
)

// Portal keeps what the portal keeps: it is its Store and its People.
type Portal struct{ People }

// Portal returns the portal's part of the database.
func (db *DB) Portal() Portal { return Portal{People{db}} }

// logged runs f for an actor and appends an event in one transaction.
func (s Portal) logged(ctx context.Context, by postern.Actor, e postern.Event, f func(ctx context.Context, tx *Tx) error) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		if err := f(ctx, tx); err != nil {
			return err
		}
		return tx.Append(ctx, e)
	})
}

// AddPerson adds a person and appends the event.
func (s Portal) AddPerson(ctx context.Context, by postern.Actor, p postern.Person, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error { return tx.AddPerson(ctx, p) })
}

// ChangePerson changes a person and appends the event, if anything has changed.
// Check sees the person before and after, in the transaction; its error undoes
// the change.
func (s Portal) ChangePerson(ctx context.Context, by postern.Actor, name string, change func(*postern.Person),
	check func(ctx context.Context, tx *Tx, old, next postern.Person) error, e postern.Event, mail func(old postern.Person, what string) *portal.Message,
) (what string, err error) {
	err = s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error {
		old, err := tx.Person(ctx, name)
		if err != nil {
			return err
		}
		next := old
		next.Groups = slices.Clone(old.Groups)
		change(&next)
		if err := tx.ChangePerson(ctx, next); err != nil {
			return err
		}
		if next, err = tx.Person(ctx, name); err != nil {
			return err
		}
		if what = portal.Changes(old, next); what == "" {
			return nil
		}
		if err := check(ctx, tx, old, next); err != nil {
			return err
		}
		if old.Email != "" && old.Email != next.Email {
			if err := tx.dropLinks(ctx, name, old.Email); err != nil {
				return err
			}
			if err := tx.queue(ctx, mail(old, what)); err != nil {
				return err
			}
		}
		e := e
		e.Reason = what
		return tx.Append(ctx, e)
	})
	return what, err
}

// SetPersonStatus changes a person's status and appends the event.
func (s Portal) SetPersonStatus(ctx context.Context, by postern.Actor, name string, status postern.PersonStatus, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error { return tx.SetPersonStatus(ctx, name, status) })
}

// SetCredentialStatus changes a credential's status and appends the event.
func (s Portal) SetCredentialStatus(ctx context.Context, by postern.Actor, kind postern.CredentialKind, id string, status postern.CredentialStatus, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error { return tx.SetCredentialStatus(ctx, kind, id, status) })
}

// PortalKey returns the portal's secret, made by whichever server asks first.
func (s Portal) PortalKey(ctx context.Context) ([]byte, error) {
	fresh := make([]byte, 32)
	rand.Read(fresh)
	sealed, err := s.Seal(purposeKey, portalKeyName, fresh)
	if err != nil {
		return nil, err
	}
	var kept []byte
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO keys (name, sealed, public, created) VALUES ($1, $2, '', $3) ON CONFLICT (name) DO NOTHING`,
			portalKeyName, sealed, micros(s.Now())); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT sealed FROM keys WHERE name = $1`, portalKeyName).Scan(&kept)
	})
	if err != nil {
		return nil, err
	}
	return s.Unseal(purposeKey, portalKeyName, kept)
}

// SetPortalSetting keeps a setting that servers and commands share.
func (s Portal) SetPortalSetting(ctx context.Context, name, value string) error {
	_, err := s.changed(ctx, postern.Actor{}, `INSERT INTO portal_settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// PortalSetting returns a setting, or "".
func (s Portal) PortalSetting(ctx context.Context, name string) (string, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (string, error) {
		var v string
		err := tx.QueryRow(ctx, `SELECT value FROM portal_settings WHERE name = $1`, name).Scan(&v)
		if errors.Is(err, sql.ErrNoRows) {
			return "", nil
		}
		return v, err
	})
}

// PutLink stores a link, queues its message and appends its event.
func (s Portal) PutLink(ctx context.Context, by postern.Actor, f portal.Fresh) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error { return tx.putLink(ctx, f) })
}

func (tx *Tx) putLink(ctx context.Context, f portal.Fresh) error {
	if _, err := tx.Exec(ctx, `INSERT INTO portal_links (hash, purpose, person, email, detail, created, expires, used) VALUES ($1, $2, $3, $4, $5, $6, $7, 0)`,
		f.Hash[:], string(f.Purpose), f.Person, f.Email, f.Detail, micros(f.Created), micros(f.Expires)); err != nil {
		return err
	}
	if err := tx.queue(ctx, f.Message); err != nil {
		return err
	}
	return tx.Append(ctx, f.Event)
}

// Link returns a link, used or not.
func (s Portal) Link(ctx context.Context, hash [32]byte) (portal.Link, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (portal.Link, error) {
		l := portal.Link{Hash: hash}
		var created, expires, used int64
		err := tx.QueryRow(ctx, `SELECT purpose, person, email, detail, created, expires, used, serial FROM portal_links WHERE hash = $1`, hash[:]).
			Scan(&l.Purpose, &l.Person, &l.Email, &l.Detail, &created, &expires, &used, &l.Serial)
		l.Created, l.Expires, l.Used = fromMicros(created), fromMicros(expires), fromMicros(used)
		return l, notFound(err, "there is no such link")
	})
}

// AnswerLink spends a link, stores the proof, if there is one, and appends the
// event.
func (s Portal) AnswerLink(ctx context.Context, by postern.Actor, hash [32]byte, now time.Time, p *portal.Proof, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error {
		if err := tx.useLink(ctx, hash, "", now); err != nil || p == nil {
			return err
		}
		return tx.putProof(ctx, *p)
	})
}

// useLink marks a link used, for a certificate if it has a serial number, or
// fails with [portal.ErrLink] if it was used, or has expired.
func (tx *Tx) useLink(ctx context.Context, hash [32]byte, serial string, now time.Time) error {
	n, err := tx.Exec(ctx, `UPDATE portal_links SET used = $1, serial = $3 WHERE hash = $2 AND used = 0 AND expires > $1`, micros(now), hash[:], serial)
	if err == nil && n == 0 {
		return portal.ErrLink
	}
	return err
}

// dropLinks makes a person's unused links void: all, or those that were sent to
// an address.
func (tx *Tx) dropLinks(ctx context.Context, person, email string) error {
	_, err := tx.Exec(ctx, `DELETE FROM portal_links WHERE person = $1 AND used = 0 AND ($2 = '' OR email = $2)`, person, email)
	return err
}

// changed runs one statement for an actor and reports whether it changed a row.
func (s Portal) changed(ctx context.Context, by postern.Actor, query string, args ...any) (bool, error) {
	var n int64
	err := s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) (err error) {
		n, err = tx.Exec(ctx, query, args...)
		return err
	})
	return n > 0, err
}

// PutMessage queues a message.
func (s Portal) PutMessage(ctx context.Context, m portal.Message) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.putMessage(ctx, m) })
}

// queue queues a message, if there is one.
func (tx *Tx) queue(ctx context.Context, m *portal.Message) error {
	if m == nil {
		return nil
	}
	return tx.putMessage(ctx, *m)
}

func (tx *Tx) putMessage(ctx context.Context, m portal.Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	sealed, err := tx.db.Seal(purposePortalMail, m.ID, b)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO portal_mail (id, sealed, due, tries) VALUES ($1, $2, 0, 0)`, m.ID, sealed)
	return err
}

// DueMessages leases messages that are due.
func (s Portal) DueMessages(ctx context.Context, now time.Time, n int, lease time.Duration) ([]portal.Message, error) {
	var due []portal.Message
	idle, err := s.noneDue(ctx, now)
	if err != nil || idle {
		return nil, err
	}
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		if due, err = tx.dueMessages(ctx, now, n); err != nil {
			return err
		}
		for _, m := range due {
			if _, err := tx.Exec(ctx, `UPDATE portal_mail SET due = $1 WHERE id = $2`, micros(now.Add(lease)), m.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return due, err
}

func (s Portal) noneDue(ctx context.Context, now time.Time) (bool, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (bool, error) {
		var n int64
		err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM portal_mail WHERE due <= $1`, micros(now)).Scan(&n)
		return n == 0, err
	})
}

func (tx *Tx) dueMessages(ctx context.Context, now time.Time, n int) ([]portal.Message, error) {
	rows, err := tx.Query(ctx, `SELECT id, sealed, tries FROM portal_mail WHERE due <= $1 ORDER BY due, id LIMIT $2`, micros(now), n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var due []portal.Message
	for rows.Next() {
		var id string
		var sealed []byte
		var tries int
		if err := rows.Scan(&id, &sealed, &tries); err != nil {
			return nil, err
		}
		b, err := tx.db.Unseal(purposePortalMail, id, sealed)
		if err != nil {
			return nil, err
		}
		var m portal.Message
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, err
		}
		m.ID, m.Tries = id, tries
		due = append(due, m)
	}
	return due, rows.Err()
}

// DropMessage forgets a message.
func (s Portal) DropMessage(ctx context.Context, id string) error {
	_, err := s.changed(ctx, postern.Actor{}, `DELETE FROM portal_mail WHERE id = $1`, id)
	return err
}

// RetryMessage makes a message due again later.
func (s Portal) RetryMessage(ctx context.Context, id string, due time.Time) error {
	_, err := s.changed(ctx, postern.Actor{}, `UPDATE portal_mail SET due = $1, tries = tries + 1 WHERE id = $2`, micros(due), id)
	return err
}

// RemindOnce queues a reminder, unless one as late or later was queued before.
func (s Portal) RemindOnce(ctx context.Context, serial string, before time.Duration, m portal.Message) (bool, error) {
	queued := false
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		var n int64
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM portal_reminders WHERE serial = $1 AND before <= $2`, serial, int64(before)).Scan(&n); err != nil {
			return err
		}
		if queued = n == 0; !queued {
			return nil
		}
		if _, err := tx.Exec(ctx, `INSERT INTO portal_reminders (serial, before, sent) VALUES ($1, $2, $3)`, serial, int64(before), micros(s.Now())); err != nil {
			return err
		}
		return tx.putMessage(ctx, m)
	})
	return queued && err == nil, err
}

// Count adds one to the count of key in the window that contains now.
func (s Portal) Count(ctx context.Context, key string, window time.Duration, now time.Time) (int64, error) {
	began := now.Truncate(window)
	var n int64
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO portal_counts (key, began, ends, n) VALUES ($1, $2, $3, 1)
			ON CONFLICT (key) DO UPDATE SET n = CASE WHEN portal_counts.began = excluded.began THEN portal_counts.n + 1 ELSE 1 END,
				began = excluded.began, ends = excluded.ends
			RETURNING n`, key, micros(began), micros(began.Add(window))).Scan(&n)
	})
	return n, err
}

// portalKept is how long what has expired is still kept: a used link says
// "used" and not "unknown" to whoever looks into the database.
const portalKept = 7 * 24 * time.Hour

// ForgetExpired deletes what is long past.
func (s Portal) ForgetExpired(ctx context.Context, now time.Time) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		past := micros(now.Add(-portalKept))
		for _, q := range []string{
			`DELETE FROM portal_links WHERE expires < $1`,
			`DELETE FROM portal_orders WHERE expires < $1`,
			`DELETE FROM portal_counts WHERE ends < $1`,
		} {
			if _, err := tx.Exec(ctx, q, past); err != nil {
				return err
			}
		}
		return nil
	})
}

// PutRecoveryCodes replaces all codes of a person.
func (s Portal) PutRecoveryCodes(ctx context.Context, by postern.Actor, person string, codes []portal.RecoveryCode, now time.Time, e postern.Event) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error { return tx.putCodes(ctx, person, codes, now) })
}

func (tx *Tx) putCodes(ctx context.Context, person string, codes []portal.RecoveryCode, now time.Time) error {
	if _, err := tx.dropCodes(ctx, person); err != nil {
		return err
	}
	for _, c := range codes {
		if _, err := tx.Exec(ctx, `INSERT INTO portal_codes (id, person, hash) VALUES ($1, $2, $3)`, c.ID, person, c.Hash[:]); err != nil {
			return err
		}
		if err := tx.PutCredential(ctx, postern.Credential{Kind: postern.RecoveryCode, ID: c.ID, Person: person, Created: now}); err != nil {
			return err
		}
	}
	return nil
}

// dropCodes makes a person's recovery codes void, and returns how many there were.
func (tx *Tx) dropCodes(ctx context.Context, person string) (int64, error) {
	if _, err := tx.Exec(ctx, `UPDATE credentials SET status = 'revoked' WHERE kind = 'recovery' AND person = $1`, person); err != nil {
		return 0, err
	}
	return tx.Exec(ctx, `DELETE FROM portal_codes WHERE person = $1`, person)
}

// RecoveryCodes returns how many codes a person has left.
func (s Portal) RecoveryCodes(ctx context.Context, person string) (int, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (int, error) {
		var n int
		err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM portal_codes WHERE person = $1`, person).Scan(&n)
		return n, err
	})
}

// Proof returns, and if need be begins, a person's standing with a name.
func (s Portal) Proof(ctx context.Context, person, name, value string) (portal.Proof, error) {
	p, err := s.proof(ctx, person, name)
	if !errors.Is(err, sql.ErrNoRows) {
		return p, err
	}
	if _, err := s.changed(ctx, postern.Actor{}, `INSERT INTO portal_proofs (person, name, value, method, proved, asked) VALUES ($1, $2, $3, '', 0, 0)
		ON CONFLICT (person, name) DO NOTHING`, person, name, value); err != nil {
		return p, err
	}
	return s.proof(ctx, person, name)
}

func (s Portal) proof(ctx context.Context, person, name string) (portal.Proof, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (portal.Proof, error) {
		return scanProof(tx.QueryRow(ctx, `SELECT person, name, value, method, proved, asked FROM portal_proofs WHERE person = $1 AND name = $2`, person, name))
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
	_, err := tx.Exec(ctx, `UPDATE portal_proofs SET method = $1, proved = $2, asked = $3 WHERE person = $4 AND name = $5`,
		string(p.Method), micros(p.Proved), micros(p.Asked), p.Person, p.Name)
	return err
}

// AskedProofs returns the names that wait for an administrator, oldest first.
func (s Portal) AskedProofs(ctx context.Context) ([]portal.Proof, error) {
	return readRows(ctx, s.DB, scanProof, `SELECT person, name, value, method, proved, asked FROM portal_proofs WHERE asked <> 0 ORDER BY asked, person, name`)
}

// readRows is a query of many rows in a transaction of its own.
func readRows[T any](ctx context.Context, db *DB, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	return readOne(ctx, db, func(ctx context.Context, tx *Tx) ([]T, error) {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var all []T
		for rows.Next() {
			v, err := scan(rows)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, rows.Err()
	})
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
		if _, err := tx.Exec(ctx, `INSERT INTO portal_allowed (pattern, person, added, created) VALUES ($1, $2, $3, $4)
			ON CONFLICT (pattern, person) DO NOTHING`, a.Pattern, a.Person, a.By, micros(a.Created)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE portal_proofs SET asked = 0 WHERE name = $1 AND ($2 = '' OR person = $2)`, a.Pattern, a.Person)
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
