package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

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
			if _, err := tx.Exec(ctx, `UPDATE portal_mail SET due = $1
				WHERE id = $2`, micros(now.Add(lease)), m.ID); err != nil {
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
	rows, err := tx.Query(ctx, `SELECT id, sealed, tries FROM portal_mail WHERE due <= $1
		ORDER BY due, id LIMIT $2`, micros(now), n)
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
	_, err := s.changed(ctx, postern.Actor{}, `UPDATE portal_mail SET due = $1, tries = tries + 1
		WHERE id = $2`, micros(due), id)
	return err
}

// RemindOnce queues a reminder, unless one as late or later was queued before.
func (s Portal) RemindOnce(ctx context.Context, serial string, before time.Duration, m portal.Message) (bool, error) {
	queued := false
	err := s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		var n int64
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM portal_reminders
			WHERE serial = $1 AND before <= $2`, serial, int64(before)).Scan(&n); err != nil {
			return err
		}
		if queued = n == 0; !queued {
			return nil
		}
		if _, err := tx.Exec(ctx, `INSERT INTO portal_reminders (serial, before, sent)
			VALUES ($1, $2, $3)`, serial, int64(before), micros(s.Now())); err != nil {
			return err
		}
		return tx.putMessage(ctx, m)
	})
	return queued && err == nil, err
}

// Unsent returns how many messages were tried and could not be sent.
func (s Portal) Unsent(ctx context.Context) (int64, error) {
	return s.readNumber(ctx, `SELECT COUNT(*) FROM portal_mail WHERE tries > 0`)
}

// Queued returns how many messages wait to be sent.
func (s Portal) Queued(ctx context.Context) (int64, error) {
	return s.readNumber(ctx, `SELECT COUNT(*) FROM portal_mail`)
}
