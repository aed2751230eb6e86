package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

// queueSync queues a use for the peers of the sync protocol. Only a key's newest use
// is sent.
func queueSync(tx *Tx, u otp.Use) {
	for _, peer := range u.Peers {
		tx.later(`INSERT INTO otp_sync (peer, public_id, seq, stamp, nonce, used)
			VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (peer, public_id) DO UPDATE SET seq = excluded.seq, stamp = excluded.stamp,
			nonce = excluded.nonce, used = excluded.used
			WHERE otp_sync.seq < excluded.seq`,
			peer, u.PublicID, u.Seq, int64(u.Timestamp), u.Nonce, micros(u.Time))
	}
}

// Unsynced returns at most limit uses that a peer has not acknowledged.
func (o *OTP) Unsynced(ctx context.Context, peer string, limit int) ([]otp.Counter, error) {
	var all []otp.Counter
	err := o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		all = nil
		rows, err := tx.Query(ctx, `SELECT public_id, seq, stamp, nonce, used FROM otp_sync WHERE peer = $1
			ORDER BY used, public_id LIMIT $2`, peer, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c otp.Counter
			var stamp, used int64
			if err := rows.Scan(&c.PublicID, &c.Seq, &stamp, &c.Nonce, &used); err != nil {
				return err
			}
			c.Timestamp, c.Time = uint32(stamp), fromMicros(used)
			all = append(all, c)
		}
		return rows.Err()
	})
	return all, err
}

// Synced says that a peer has heard of a key's use, and not of a later one.
func (o *OTP) Synced(ctx context.Context, peer string, c otp.Counter) error {
	return o.db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM otp_sync
			WHERE peer = $1 AND public_id = $2 AND seq <= $3`, peer, c.PublicID, c.Seq)
		return err
	})
}

// Merge implements [otp.Replicas].
func (o *OTP) Merge(ctx context.Context, c otp.Counter) (before otp.Last, active bool, err error) {
	err = o.db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		before, active = otp.Never, true
		var status string
		err := tx.QueryRow(ctx, `SELECT status FROM credentials
			WHERE kind = 'yubikey' AND id = $1`, c.PublicID).Scan(&status)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		active = status == "" || status == string(postern.CredentialActive)
		if before, err = lastUse(ctx, tx, c.PublicID); err != nil || c.Seq < 0 {
			return err
		}
		return raiseCounter(ctx, tx, c)
	})
	return before, active, err
}

// SyncConfig returns how this installation synchronizes with other validation
// servers; the zero value if it does not.
func (o *OTP) SyncConfig(ctx context.Context) (otp.Sync, error) {
	var s otp.Sync
	var text string
	err := o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT value FROM otp_settings WHERE name = 'sync'`).Scan(&text)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	s.Store = o
	return s, err
}

// SetSyncConfig sets it. Servers read it when they start.
func (o *OTP) SetSyncConfig(ctx context.Context, s otp.Sync) error {
	s.Store = o
	if err := s.Validate(); err != nil {
		return err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return o.db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO otp_settings (name, value) VALUES ('sync', $1)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, string(text)); err != nil {
			return err
		}
		return tx.Append(ctx, postern.Event{Kind: postern.EventOTPSync, Object: strings.Join(s.Peers, " ")})
	})
}
