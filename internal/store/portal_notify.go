package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

// notifiedSetting is the portal's setting for the index of the first event that people
// were not notified of.
const notifiedSetting = "told"

// notifyStep is how many events may be read again before the mark is moved past them,
// if none of them is of a kind that people are notified of.
const notifyStep = 1000

// StartNotifying implements [portal.NotificationStore].
func (s Portal) StartNotifying(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		size, err := tx.logSize(ctx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO portal_settings (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO NOTHING`, notifiedSetting, strconv.FormatInt(size, 10))
		return err
	})
}

func (tx *Tx) logSize(ctx context.Context) (n int64, err error) {
	err = tx.QueryRow(ctx, `SELECT size FROM log_state WHERE id = 1`).Scan(&n)
	return n, err
}

// Unnotified implements [portal.NotificationStore].
func (s Portal) Unnotified(ctx context.Context, kinds []string, n int) (portal.Unnotified, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (portal.Unnotified, error) {
		var u portal.Unnotified
		var from string
		err := tx.QueryRow(ctx, `SELECT value FROM portal_settings WHERE name = $1`, notifiedSetting).Scan(&from)
		if errors.Is(err, sql.ErrNoRows) {
			return u, nil
		}
		if err == nil {
			u.From, err = strconv.ParseInt(from, 10, 64)
		}
		if err != nil {
			return u, err
		}
		if u.Next, err = tx.logSize(ctx); err != nil || u.Next == u.From {
			return u, err
		}
		if u.Events, err = tx.eventsOf(ctx, u.From, kinds, n); err != nil {
			return u, err
		}
		switch {
		case len(u.Events) == n:
			u.Next = u.Events[n-1].Index + 1
		case len(u.Events) == 0 && u.Next < u.From+notifyStep:
			u.Next = u.From
		}
		return u, nil
	})
}

// eventsOf returns the first n events of some kinds, from an index on.
func (tx *Tx) eventsOf(ctx context.Context, from int64, kinds []string, n int) ([]postern.Event, error) {
	args := []any{from, n}
	for _, k := range kinds {
		args = append(args, k)
	}
	marks := ""
	for i := range kinds {
		marks += ", $" + strconv.Itoa(i+3)
	}
	return tx.readEntries(ctx, `e.idx >= $1 AND e.kind IN (`+strings.TrimPrefix(marks, ", ")+`)
		ORDER BY e.idx LIMIT $2`, args...)
}

// Notify implements [portal.NotificationStore].
func (s Portal) Notify(ctx context.Context, u portal.Unnotified, messages []portal.Message) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.Exec(ctx, `UPDATE portal_settings SET value = $1 WHERE name = $2 AND value = $3`,
			strconv.FormatInt(u.Next, 10), notifiedSetting, strconv.FormatInt(u.From, 10))
		if err != nil || n == 0 {
			return err
		}
		for _, m := range messages {
			if err := tx.putMessage(ctx, m); err != nil {
				return err
			}
		}
		return nil
	})
}

// SSHKeyKnown implements [portal.NotificationStore].
func (s Portal) SSHKeyKnown(ctx context.Context, serial string) (bool, error) {
	n, err := strconv.ParseUint(serial, 10, 63)
	if err != nil {
		return false, nil
	}
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (known bool, err error) {
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM ssh_certificates c
			JOIN ssh_certificates o ON o.person = c.person
			WHERE c.serial = $1 AND o.fingerprint = c.fingerprint AND o.issued < c.issued
			AND o.revoked = 0)`, int64(n)).Scan(&known)
		return known, err
	})
}
