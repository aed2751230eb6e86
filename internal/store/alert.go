package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/alert"
	"github.com/postern-project/postern/timeline"
)

var _ alert.Store = Alerts{}

// Alerts keeps how far alerts have read the timeline, and their messages: it is the
// [alert.Store].
type Alerts struct{ *DB }

// Alerts returns the alerts' part of the database.
func (db *DB) Alerts() Alerts { return Alerts{db} }

// StartAlerts implements [alert.Store].
func (s Alerts) StartAlerts(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		size, err := tx.logSize(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO alert_progress (id, version, next, state) VALUES (1, 1, $1, '')
			ON CONFLICT (id) DO NOTHING`, size)
		return err
	})
}

// StopAlerts implements [alert.Store].
func (s Alerts) StopAlerts(ctx context.Context) error {
	n, err := s.readNumber(ctx, `SELECT (SELECT COUNT(*) FROM alert_progress) + (SELECT COUNT(*) FROM alert_queue)`)
	if err != nil || n == 0 {
		return err
	}
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM alert_progress`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `DELETE FROM alert_queue`)
		return err
	})
}

// ReadAlerts implements [alert.Store].
func (s Alerts) ReadAlerts(ctx context.Context, n int) (alert.Progress, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (p alert.Progress, err error) {
		var state string
		err = tx.QueryRow(ctx, `SELECT version, next, state FROM alert_progress WHERE id = 1`).
			Scan(&p.Version, &p.Next, &state)
		if err != nil {
			return p, notFound(err, "alerts were not begun")
		}
		p.State = []byte(state)
		size, err := tx.logSize(ctx)
		if err != nil || size <= p.Next {
			return p, err
		}
		p.Events, err = tx.Events(ctx, timeline.Filter{From: p.Next, Limit: n})
		return p, err
	})
}

// AdvanceAlerts implements [alert.Store].
func (s Alerts) AdvanceAlerts(ctx context.Context, p alert.Progress, queue []alert.Message) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `UPDATE alert_progress SET version = version + 1, next = $1, state = $2
			WHERE id = 1 AND version = $3`, p.Next, string(p.State), p.Version)
		if err != nil || n == 0 {
			return err
		}
		for _, m := range queue {
			text, err := json.Marshal(m)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `INSERT INTO alert_queue (id, message, due, tries) VALUES ($1, $2, 0, 0)`,
				m.ID, string(text)); err != nil {
				return err
			}
		}
		return nil
	})
}

// DueAlerts implements [alert.Store].
func (s Alerts) DueAlerts(ctx context.Context, now time.Time, n int, lease time.Duration) ([]alert.Message, error) {
	ahead := now.Add(alert.LastTry)
	idle, err := readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (bool, error) {
		var due bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM alert_queue WHERE due <= $1 OR due > $2)`,
			micros(now), micros(ahead)).Scan(&due)
		return !due, err
	})
	if err != nil || idle {
		return nil, err
	}
	var due []alert.Message
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		if due, err = tx.dueAlerts(ctx, now, ahead, n); err != nil {
			return err
		}
		for _, m := range due {
			if _, err := tx.Exec(ctx, `UPDATE alert_queue SET due = $1 WHERE id = $2`, micros(now.Add(lease)),
				m.ID); err != nil {
				return err
			}
		}
		return nil
	})
	return due, err
}

func (tx *Tx) dueAlerts(ctx context.Context, now, ahead time.Time, n int) ([]alert.Message, error) {
	rows, err := tx.Query(ctx, `SELECT message, tries FROM alert_queue WHERE due <= $1 OR due > $2
		ORDER BY tries, due, id LIMIT $3`, micros(now), micros(ahead), n)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var due []alert.Message
	for rows.Next() {
		var text string
		var m alert.Message
		if err := rows.Scan(&text, &m.Tries); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			return nil, err
		}
		due = append(due, m)
	}
	return due, rows.Err()
}

// DropAlert implements [alert.Store].
func (s Alerts) DropAlert(ctx context.Context, id string, events ...postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM alert_queue WHERE id = $1`, id)
		if err != nil || n == 0 {
			return err
		}
		for _, e := range events {
			if err := tx.Append(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// RetryAlert implements [alert.Store].
func (s Alerts) RetryAlert(ctx context.Context, id string, due time.Time) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.Exec(ctx, `UPDATE alert_queue SET due = $1, tries = tries + 1 WHERE id = $2`, micros(due), id)
		return err
	})
}

// Queued returns how many messages wait to be delivered.
func (s Alerts) Queued(ctx context.Context) (int64, error) {
	return s.readNumber(ctx, `SELECT COUNT(*) FROM alert_queue`)
}

// NewAddress implements [alert.Store].
func (s Alerts) NewAddress(ctx context.Context, e postern.Event) (bool, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (bool, error) {
		var before, here bool
		const signedIn = `SELECT EXISTS (SELECT 1 FROM log_events
			WHERE person = $1 AND idx < $2 AND outcome = 'ok' AND kind IN ('gate.passed', 'ssh.auth', 'pam.auth')`
		err := tx.QueryRow(ctx, signedIn+` AND address = $3)`, e.Person, e.Index, e.Address).Scan(&here)
		if err != nil {
			return false, err
		}
		if here {
			return false, nil
		}
		// Logins of a person who was there before an archive may all be in it.
		err = tx.QueryRow(ctx, signedIn+` AND address <> '')
			OR EXISTS (SELECT 1 FROM people WHERE name = $1 AND created < (SELECT first.time FROM log_archive
			JOIN log_events first ON first.idx = log_archive.size))`, e.Person, e.Index).Scan(&before)
		return before, err
	})
}

// AppendChange appends an event about a state, unless the last of its kind and object has
// the same outcome and reason. The first is appended unless its outcome is OK and no earlier one
// can be in an archive.
func (s Timeline) AppendChange(ctx context.Context, e postern.Event) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		kept := timeline.Clean(e)
		last, err := tx.lastEvent(ctx, kept.Kind, kept.Object)
		if err != nil || last.Outcome == e.Outcome && (last.Reason == kept.Reason || e.Outcome == postern.OK) {
			return err
		}
		return tx.Append(ctx, e)
	})
}

// lastEvent returns the last entry of a kind about an object; without one, one whose
// outcome is OK, or without an outcome if it may be in an archive.
func (tx *Tx) lastEvent(ctx context.Context, kind, object string) (postern.Event, error) {
	found, err := tx.readEntries(ctx, `e.kind = $1 AND e.object = $2 ORDER BY e.idx DESC LIMIT 1`, kind, object)
	switch {
	case err != nil:
		return postern.Event{}, err
	case len(found) == 1:
		return found[0], nil
	}
	if a, err := tx.archived(ctx); err != nil || a.Size > 0 {
		return postern.Event{}, err
	}
	return postern.Event{Outcome: postern.OK}, nil
}
