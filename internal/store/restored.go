package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/otp"
	"github.com/postern-project/postern/timeline"
)

// Position says how far a database is. A later one has a higher epoch, or the same and
// a longer timeline.
type Position struct {
	Epoch      int64  // how often the database was restored
	Checkpoint string // the timeline's, signed
	Behind     bool   // a server knows a later position, which this database has lost
}

// Counters that say what is known about restored databases.
const (
	counterEpoch  = "restores"
	counterBehind = "behind"
)

// Position returns how far the database is.
func (db *DB) Position(ctx context.Context) (Position, error) {
	return readOne(ctx, db, func(ctx context.Context, tx *Tx) (p Position, err error) {
		if p.Epoch, err = tx.counter(ctx, counterEpoch); err != nil {
			return p, err
		}
		behind, err := tx.counter(ctx, counterBehind)
		if err != nil {
			return p, err
		}
		s, err := tx.logState(ctx)
		p.Checkpoint, p.Behind = s.Checkpoint, behind != 0
		return p, err
	})
}

// counter returns a counter's value, 0 if there is none.
func (tx *Tx) counter(ctx context.Context, name string) (n int64, err error) {
	err = tx.QueryRow(ctx, `SELECT value FROM counters WHERE name = $1`, name).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return n, err
}

func (tx *Tx) setCounter(ctx context.Context, name string, value int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO counters (name, value) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

// SetBehind records that a later position of the database was known, for other servers
// and later starts, until [DB.AcceptRestored].
func (db *DB) SetBehind(ctx context.Context) error {
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.setCounter(ctx, counterBehind, 1) })
}

// Contains reports whether the timeline begins with what a checkpoint of it signed.
func (s Timeline) Contains(ctx context.Context, c timeline.Checkpoint) (bool, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (bool, error) {
		size, root, err := timeline.RootAt(ctx, archive{tx, s.files}, c.Size)
		return err == nil && size >= c.Size && root == c.Root, err
	})
}

// OnCommit has f called with the timeline's new checkpoint when a batch of writes is
// durable, before the writes are answered: an error of f is theirs. It is called from
// one goroutine at a time.
func (db *DB) OnCommit(f func(c timeline.Checkpoint, signed string) error) { db.marked.Store(&f) }

// Refuse makes every later attempt to use up a one-time password, link or recovery code
// fail with err; nil ends that.
func (db *DB) Refuse(err error) {
	if err == nil {
		db.reached.Store(0)
		db.refused.Store(nil)
		return
	}
	db.refused.Store(&err)
}

// refusing returns why nothing is used up, or nil.
func (db *DB) refusing() error {
	if err := db.refused.Load(); err != nil {
		return *err
	}
	return nil
}

// Disabled says what AcceptRestored took out of use.
type Disabled struct {
	Keys  int `json:"keys"`  // YubiKeys and HOTP authenticators
	Codes int `json:"codes"` // backup codes and recovery codes
	Links int `json:"links"` // one-time links
}

func (d Disabled) String() string {
	return fmt.Sprintf("disabled keys: %d; void codes: %d; void links: %d", d.Keys, d.Codes, d.Links)
}

// restoreGap is more than what any server numbers between a backup and its restore.
const restoreGap = 1 << 32

// AcceptRestored begins an epoch of the database. Numbers that others have seen go on
// from where they cannot have been. Unless the database is trusted, which means that
// nothing was used since the backup, everything that is valid once and may have been
// used is taken out of use:
//
//   - YubiKeys whose secret is here and HOTP authenticators are disabled, since their
//     counters are not known: [OTP.EnableWithCode] has a YubiKey's raised by a fresh code;
//   - TOTP authenticators have used all codes up to those that are valid now;
//   - one-time links, backup codes, recovery codes and ACME nonces are void.
//
// The event gets the number of keys.
func (db *DB) AcceptRestored(
	ctx context.Context, epoch int64, trust bool, event postern.Event,
) (off Disabled, err error) {
	err = db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		off = Disabled{}
		if err := tx.setCounter(ctx, counterEpoch, epoch); err != nil {
			return err
		}
		if err := tx.setCounter(ctx, counterBehind, 0); err != nil {
			return err
		}
		if err := tx.skipNumbers(ctx); err != nil {
			return err
		}
		if !trust {
			if err := tx.voidOnce(ctx, db.Now(), &off); err != nil {
				return err
			}
		}
		event.Count = int64(off.Keys)
		if err := tx.Append(ctx, event); err != nil {
			return err
		}
		return tx.Touch(ctx)
	})
	db.otp.forgetPoll()
	return off, err
}

// skipNumbers leaves out the numbers of SSH certificates and revocation lists that were
// perhaps given since the backup. (Serial numbers of X.509 certificates are random.) A CA
// whose key is here signs its list again, under a new number.
func (tx *Tx) skipNumbers(ctx context.Context) error {
	if _, err := tx.Exec(ctx, `UPDATE counters SET value = value + $1
		WHERE name IN ('ssh-serial', 'ssh-revision')`, int64(restoreGap)); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE ca_crls SET number = number + $1, revision = CASE
		WHEN (SELECT i.sealed_key FROM ca_issuers i WHERE i.id = ca_crls.issuer) IS NULL THEN revision
		ELSE -1 END, complete = 0`, int64(restoreGap)); err != nil {
		return err
	}
	unlisted, err := tx.texts(ctx, `SELECT id FROM ca_issuers WHERE certificate IS NOT NULL
		AND id NOT IN (SELECT issuer FROM ca_crls)`)
	if err != nil {
		return err
	}
	for _, id := range unlisted {
		if _, err := tx.Exec(ctx, `INSERT INTO ca_crls (issuer, number, revision, der, this_update, next_update)
			VALUES ($1, $2, -1, $3, 0, 0)`, id, int64(restoreGap), []byte{}); err != nil {
			return err
		}
	}
	return nil
}

// texts runs a query for texts.
func (tx *Tx) texts(ctx context.Context, query string) (all []string, err error) {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}

// voidOnce takes out of use what is valid once and may have been used.
func (tx *Tx) voidOnce(ctx context.Context, now time.Time, off *Disabled) error {
	for _, q := range []struct {
		n   *int
		sql string
	}{
		{&off.Keys, `UPDATE credentials SET status = 'disabled' WHERE status = 'active' AND (kind = 'hotp' OR
			kind = 'yubikey' AND id IN (SELECT public_id FROM otp_keys WHERE sealed IS NOT NULL))`},
		{nil, `UPDATE otp_counters SET behind = 1 WHERE public_id IN
			(SELECT public_id FROM otp_keys WHERE sealed IS NOT NULL)`},
		{&off.Codes, `DELETE FROM otp_recovery`},
		{nil, `UPDATE credentials SET status = 'revoked' WHERE kind = 'recovery'`},
		{&off.Codes, `DELETE FROM portal_codes`},
		{&off.Links, `DELETE FROM portal_links WHERE used = 0`},
		{nil, `UPDATE otp_oath SET behind = 1 WHERE kind = 'hotp'`},
	} {
		n, err := tx.Exec(ctx, q.sql)
		if err != nil {
			return err
		}
		if q.n != nil {
			*q.n += int(n)
		}
	}
	if _, err := tx.Exec(ctx, `UPDATE otp_oath SET moving = $1 / period + $2
		WHERE kind = 'totp' AND moving < $1 / period + $2`, now.Unix(), int64(otp.TOTPSkew)); err != nil {
		return err
	}
	return tx.useNonces(ctx, now)
}

// useNonces uses up every ACME nonce that was made until now, where servers share them.
func (tx *Tx) useNonces(ctx context.Context, now time.Time) error {
	if !tx.db.Shared() {
		return nil
	}
	_, err := tx.Exec(ctx, `WITH RECURSIVE slots (slot) AS
		(SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot + 1 < $1)
		INSERT INTO acme_nonces (slot, made) SELECT slot, $2 FROM slots WHERE TRUE
		ON CONFLICT (slot) DO UPDATE SET made = excluded.made`, acme.NonceSlots, micros(now))
	return err
}

// counterKnown fails if a counter was lost in a restore: table is the table and the
// column of the ID.
func (tx *Tx) counterKnown(ctx context.Context, table, id string) error {
	var n int
	err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM `+table+` = $1 AND behind = 1`, id).Scan(&n)
	if err != nil || n == 0 {
		return err
	}
	return postern.Errorf(postern.Conflict, "the counter of %s was lost in a restore: its old codes would be valid",
		id).
		WithHint("enable a YubiKey with a code that its holder makes now; give the person another authenticator")
}

// EnableWithCode enables a YubiKey by a typed code that its holder has made now: all codes
// before it, and the code itself, are used. It is for keys whose counter was lost in a
// restore, and works with each. Denied if the code is not one of that key, or an old one.
func (o *OTP) EnableWithCode(ctx context.Context, by postern.Actor, id, typed string) error {
	key, last, err := otp.OpenCode(ctx, o, typed)
	if err == nil && key.PublicID != id {
		err = postern.Errorf(postern.Denied, "the code is one of the key %s", key.PublicID)
	}
	if err != nil {
		return err
	}
	return o.changeKey(ctx, by, id, "enabled with a code", func(ctx context.Context, tx *Tx) (int64, error) {
		n, err := tx.Exec(ctx, `UPDATE otp_counters SET seq = $2, stamp = $3, nonce = '', used = $4, behind = 0
			WHERE public_id = $1 AND seq < $2`, id, last.Seq, int64(last.Timestamp), micros(o.db.Now()))
		if err == nil && n == 0 {
			err = postern.Errorf(postern.Denied, "the code was used before")
		}
		if err != nil {
			return 0, err
		}
		return tx.Exec(ctx, `UPDATE credentials SET status = 'active'
			WHERE kind = 'yubikey' AND id = $1 AND status <> 'revoked'`, id)
	})
}
