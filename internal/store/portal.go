package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"slices"
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
func (s Portal) logged(
	ctx context.Context, by postern.Actor, e postern.Event, f func(ctx context.Context, tx *Tx) error,
) error {
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

	check func(ctx context.Context, tx *Tx, old, next postern.Person) error, e postern.Event,
	mail func(old postern.Person, what string) *portal.Message,
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
func (s Portal) SetPersonStatus(
	ctx context.Context, by postern.Actor, name string, status postern.PersonStatus, e postern.Event,
) error {
	return s.logged(ctx, by, e,
		func(ctx context.Context, tx *Tx) error { return tx.SetPersonStatus(ctx, name, status) })
}

// SetCredentialStatus changes a credential's status and appends the event.
func (s Portal) SetCredentialStatus(
	ctx context.Context, by postern.Actor, kind postern.CredentialKind, id string, status postern.CredentialStatus,
	e postern.Event,
) error {
	return s.logged(ctx, by, e,
		func(ctx context.Context, tx *Tx) error { return tx.SetCredentialStatus(ctx, kind, id, status) })
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
		if _, err := tx.Exec(ctx, `INSERT INTO keys (name, sealed, public, created) VALUES ($1, $2, '', $3)
			ON CONFLICT (name) DO NOTHING`,
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
	_, err := s.changed(ctx, postern.Actor{}, `INSERT INTO portal_settings (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
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

// changed runs one statement for an actor and reports whether it changed a row.
func (s Portal) changed(ctx context.Context, by postern.Actor, query string, args ...any) (bool, error) {
	var n int64
	err := s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) (err error) {
		n, err = tx.Exec(ctx, query, args...)
		return err
	})
	return n > 0, err
}

// Count adds one to the count of key in the window that contains now, unless it is above
// most.
func (s Portal) Count(
	ctx context.Context, key string, most int64, window time.Duration, now time.Time,
) (int64, error) {
	began := now.Truncate(window)
	var n int64
	err := s.row(ctx, `SELECT n FROM portal_counts WHERE key = $1 AND began = $2`, key, micros(began)).Scan(&n)
	switch {
	case err == nil && n > most:
		return n, nil
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return 0, s.wrap(err, "read a count")
	}
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `INSERT INTO portal_counts (key, began, ends, n) VALUES ($1, $2, $3, 1)
			ON CONFLICT (key) DO UPDATE
				SET n = CASE WHEN portal_counts.began = excluded.began THEN portal_counts.n + 1 ELSE 1 END,
				began = excluded.began, ends = excluded.ends
			RETURNING n`, key, micros(began), micros(began.Add(window))).Scan(&n)
	})
	return n, err
}

// portalKept is how long what has expired is kept, so that a used link is
// answered as used and not as unknown.
const portalKept = 7 * 24 * time.Hour

// ForgetExpired deletes what is long past.
func (s Portal) ForgetExpired(ctx context.Context, now time.Time) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		past := micros(now.Add(-portalKept))
		for _, q := range []string{
			`DELETE FROM portal_links WHERE expires < $1`,
			`DELETE FROM portal_orders WHERE expires < $1`,
		} {
			if _, err := tx.Exec(ctx, q, past); err != nil {
				return err
			}
		}
		for _, q := range []string{
			`DELETE FROM portal_counts WHERE ends < $1`,
			`DELETE FROM passkey_challenges WHERE expires < $1`,
		} {
			if _, err := tx.Exec(ctx, q, micros(now)); err != nil {
				return err
			}
		}
		return nil
	})
}

// readRows is a query of many rows in a transaction of its own.
func readRows[T any](
	ctx context.Context, db *DB, scan func(scanner) (T, error), query string, args ...any,
) ([]T, error) {
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
