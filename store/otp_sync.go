package store

import (
	"context"

	"github.com/postern-project/postern/otp"
)

// queueSync notes what the peers of the sync protocol are to hear about a use.
// Only a key's newest use matters to them.
func queueSync(ctx context.Context, tx *Tx, u otp.Use) error {
	for _, peer := range u.Peers {
		if _, err := tx.Exec(ctx, `INSERT INTO otp_sync (peer, public_id, seq, stamp, nonce, used) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (peer, public_id) DO UPDATE SET seq = excluded.seq, stamp = excluded.stamp, nonce = excluded.nonce, used = excluded.used
			WHERE otp_sync.seq < excluded.seq`,
			peer, u.PublicID, u.Seq, int64(u.Timestamp), u.Nonce, micros(u.Time)); err != nil {
			return err
		}
	}
	return nil
}

// Unsynced returns up to max uses that a peer has not heard of.
func (o *OTP) Unsynced(ctx context.Context, peer string, limit int) ([]otp.Counter, error) {
	var all []otp.Counter
	err := o.db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		all = nil
		rows, err := tx.Query(ctx, `SELECT public_id, seq, stamp, nonce, used FROM otp_sync WHERE peer = $1 ORDER BY used, public_id LIMIT $2`, peer, limit)
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
		_, err := tx.Exec(ctx, `DELETE FROM otp_sync WHERE peer = $1 AND public_id = $2 AND seq <= $3`, peer, c.PublicID, c.Seq)
		return err
	})
}
