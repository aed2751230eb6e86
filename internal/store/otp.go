package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

const (
	purposeOTPKey      = "otp key"      // sealed column otp_keys.sealed
	purposeOTPClient   = "otp client"   // sealed column otp_clients.sealed
	purposeOATH        = "otp oath"     // sealed column otp_oath.sealed
	purposeOTPUpstream = "otp upstream" // sealed column otp_outside.sealed

	otpCacheSize = 1 << 16                // keys that are cached decrypted
	otpPoll      = 200 * time.Millisecond // how old cached values may be
)

// OTP keeps keys, counters and clients of one-time passwords: it is the [otp.Keys] of
// the validation service. It gathers codes that are accepted at the same time into
// one statement, and caches decrypted keys. It is safe for concurrent use.
type OTP struct {
	db    *DB
	batch otpBatch

	mu         sync.Mutex
	readOne    *sql.Stmt // reads one key; nil until it is needed
	generation int64     // of the cached values below
	polled     time.Time // when it was last compared
	comparing  *otpComparison
	keys       map[string]otpCached[*otp.Key]
	clients    map[int64]otpCached[*otp.APIClient]
}

// OTP returns the one-time passwords in the database, the same each time.
func (db *DB) OTP() *OTP { return db.otp }

func newOTP(db *DB) *OTP {
	o := &OTP{db: db}
	o.batch.otp = o
	o.forget(0)
	return o
}

// write runs f in a WriteAs and makes sure that what it changed is seen here at
// once; other servers see it within otpPoll.
func (o *OTP) write(ctx context.Context, by postern.Actor, f func(ctx context.Context, tx *Tx) error) error {
	err := o.db.WriteAs(ctx, by, f)
	o.forgetPoll()
	return err
}

const otpKeyColumns = `c.id, COALESCE(c.person, ''), c.label, c.status, COALESCE(p.status, ''), c.created,
	       k.sealed, k.serial, u.seq, u.stamp, u.nonce, u.used`

const otpKeyTables = `
	FROM credentials c
	JOIN otp_keys k ON k.public_id = c.id
	JOIN otp_counters u ON u.public_id = c.id
	LEFT JOIN people p ON p.name = c.person
	WHERE c.kind = 'yubikey' AND `

func (o *OTP) scanKey(scan func(...any) error) (*otp.Key, error) {
	var k otp.Key
	var created, used, stamp int64
	var sealed []byte
	err := scan(&k.PublicID, &k.Person, &k.Label, &k.Status, &k.Owner, &created,
		&sealed, &k.Serial, &k.Last.Seq, &stamp, &k.Last.Nonce, &used)
	if err != nil {
		return nil, err
	}
	k.Created, k.Last.Time, k.Last.Timestamp = fromMicros(created), fromMicros(used), uint32(stamp)
	if sealed != nil {
		if k.Secret, err = o.unsealSecret(k.PublicID, sealed); err != nil {
			return nil, err
		}
	}
	return &k, nil
}

// Key implements [otp.Keys].
func (o *OTP) Key(ctx context.Context, publicID string) (*otp.Key, error) {
	if err := o.poll(ctx); err != nil {
		return nil, err
	}
	if k, ok := cached(o, o.cachedKeys, publicID); ok {
		return k, nil
	}
	k, generation, err := o.readKey(ctx, publicID)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, postern.Errorf(postern.NotFound, "no YubiKey %s", publicID)
	}
	if err != nil {
		return nil, o.db.wrap(err, "read a YubiKey")
	}
	if k.Active() {
		cache(o, o.cachedKeys, publicID, k, generation)
	}
	return k, nil
}

// readKey reads a key together with the generation, in one statement that is
// prepared once: a key that is not cached costs one round trip.
func (o *OTP) readKey(ctx context.Context, publicID string) (*otp.Key, int64, error) {
	stmt, err := o.keyStatement(ctx) //nolint:sqlclosecheck // kept as long as the database is open
	if err != nil {
		return nil, 0, err
	}
	var generation int64
	row := stmt.QueryRowContext(ctx, publicID)
	k, err := o.scanKey(func(dest ...any) error { return row.Scan(append(dest, &generation)...) })
	return k, generation, err
}

func (o *OTP) keyStatement(ctx context.Context) (*sql.Stmt, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.readOne != nil {
		return o.readOne, nil
	}
	var err error
	o.readOne, err = o.db.read.PrepareContext(ctx, `SELECT `+otpKeyColumns+`,
		(SELECT value FROM counters WHERE name = 'generation') `+otpKeyTables+`c.id = $1`)
	return o.readOne, err
}

func generationOf(ctx context.Context, tx *Tx) (n int64, err error) {
	err = tx.QueryRow(ctx, `SELECT value FROM counters WHERE name = 'generation'`).Scan(&n)
	return n, err
}

// Keys returns all keys, or those of a person, in the order of their public
// IDs.
func (o *OTP) Keys(ctx context.Context, person string) ([]*otp.Key, error) {
	return readOne(ctx, o.db, func(ctx context.Context, tx *Tx) ([]*otp.Key, error) {
		return o.keysOf(ctx, tx, Page{Person: person})
	})
}

func (o *OTP) keysOf(ctx context.Context, tx *Tx, p Page) ([]*otp.Key, error) {
	id, where, args := `c.id`, `1 = 1`, []any{}
	if p.Person != "" {
		// An expression, so that no planner reads all keys in their order.
		id, where, args = `c.id || ''`, `c.person = $1`, append(args, p.Person)
	}
	if p.After != "" {
		args = append(args, p.After)
		where += fmt.Sprintf(` AND %s > $%d`, id, len(args))
	}
	rows, err := tx.Query(ctx, `SELECT `+otpKeyColumns+otpKeyTables+where+` ORDER BY `+id+limit(p.Limit), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys []*otp.Key
	for rows.Next() {
		k, err := o.scanKey(rows.Scan)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

// limit returns the end of a query for at most n rows; 0 means all.
func limit(n int) string {
	if n == 0 {
		return ""
	}
	return " LIMIT " + strconv.Itoa(n)
}

// AddKeys adds keys, all of them or none. A key that is there already is a
// [postern.Conflict], unless replace says that its secret, serial number and
// label are to change; its counter never goes back.
func (o *OTP) AddKeys(ctx context.Context, by postern.Actor, keys []*otp.Key, replace bool) error {
	return o.write(ctx, by, func(ctx context.Context, tx *Tx) error {
		for _, k := range keys {
			if err := o.addKey(ctx, tx, k, replace); err != nil {
				return err
			}
		}
		return tx.Touch(ctx)
	})
}

func (o *OTP) addKey(ctx context.Context, tx *Tx, k *otp.Key, replace bool) error {
	if !otp.ValidPublicID(k.PublicID) {
		return postern.Errorf(postern.Invalid, "%q is not a public ID", k.PublicID)
	}
	sealed, err := o.sealSecret(k)
	if err != nil {
		return err
	}
	created := k.Created
	if created.IsZero() {
		created = o.db.Now()
	}
	status := k.Status
	if status == "" {
		status = postern.CredentialActive
	}
	n, err := tx.Exec(ctx, `INSERT INTO credentials (kind, id, person, label, status, created, expires, last_used)
		VALUES ('yubikey', $1, $2, $3, $4, $5, 0, 0) ON CONFLICT (kind, id) DO NOTHING`,
		k.PublicID, nullable(k.Person), k.Label, string(status), micros(created))
	kind := postern.EventOTPKeyAdded
	switch {
	case err != nil:
		return err
	case n == 0 && !replace:
		return postern.Errorf(postern.Conflict, "there is a YubiKey %s already", k.PublicID)
	case n == 0:
		kind = postern.EventOTPKeyChanged
		if _, err := tx.Exec(ctx, `UPDATE credentials
			SET person = COALESCE($2, person), label = CASE WHEN $3 = '' THEN label ELSE $3 END
			WHERE kind = 'yubikey' AND id = $1`, k.PublicID, nullable(k.Person), k.Label); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO otp_keys (public_id, sealed, serial) VALUES ($1, $2, $3)
		ON CONFLICT (public_id) DO UPDATE SET sealed = excluded.sealed, serial = excluded.serial`, k.PublicID, sealed,
		k.Serial); err != nil {
		return err
	}
	if err := raiseCounter(ctx, tx, otp.Counter{PublicID: k.PublicID, Last: k.Last}); err != nil {
		return err
	}
	return tx.Append(ctx, postern.Event{
		Kind: kind, Person: k.Person, Object: k.PublicID, Links: []postern.Link{yubikeyLink(k.PublicID)},
	})
}

func yubikeyLink(publicID string) postern.Link {
	return postern.Link{Kind: string(postern.YubiKey), ID: publicID}
}

// nullable returns s, or NULL for "".
func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// raiseCounter sets a key's last use unless a later one is known.
func raiseCounter(ctx context.Context, tx *Tx, c otp.Counter) error {
	_, err := tx.Exec(ctx, `INSERT INTO otp_counters (public_id, seq, stamp, nonce, used) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (public_id) DO UPDATE SET seq = excluded.seq, stamp = excluded.stamp, nonce = excluded.nonce,
		used = excluded.used
		WHERE otp_counters.seq < excluded.seq`,
		c.PublicID, c.Seq, int64(c.Timestamp), c.Nonce, micros(c.Time))
	return err
}

// RaiseCounters takes over counters from elsewhere: each key's last use becomes
// the later of the two. Keys need not be known yet.
func (o *OTP) RaiseCounters(ctx context.Context, counters []otp.Counter) error {
	return o.write(ctx, postern.Actor{}, func(ctx context.Context, tx *Tx) error {
		for _, c := range counters {
			if !otp.ValidPublicID(c.PublicID) {
				return postern.Errorf(postern.Invalid, "%q is not a public ID", c.PublicID)
			}
			if err := raiseCounter(ctx, tx, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// Counter returns a key's last use, otp.Never if there is none.
func (o *OTP) Counter(ctx context.Context, publicID string) (otp.Last, error) {
	return readOne(ctx, o.db,
		func(ctx context.Context, tx *Tx) (otp.Last, error) { return lastUse(ctx, tx, publicID) })
}

func lastUse(ctx context.Context, tx *Tx, publicID string) (otp.Last, error) {
	var last otp.Last
	var stamp, used int64
	err := tx.QueryRow(ctx, `SELECT seq, stamp, nonce, used FROM otp_counters WHERE public_id = $1`, publicID).
		Scan(&last.Seq, &stamp, &last.Nonce, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return otp.Never, nil
	}
	last.Timestamp, last.Time = uint32(stamp), fromMicros(used)
	return last, err
}

// SetKeyStatus enables, disables or revokes a key; a revoked one stays so. A key whose
// counter was lost in a restore is enabled by [OTP.EnableWithCode] alone.
func (o *OTP) SetKeyStatus(ctx context.Context, publicID string, status postern.CredentialStatus) error {
	return o.changeKey(ctx, postern.Actor{}, publicID, string(status),
		func(ctx context.Context, tx *Tx) (int64, error) {
			if status == postern.CredentialActive {
				if err := tx.counterKnown(ctx, `otp_counters WHERE public_id`, publicID); err != nil {
					return 0, err
				}
			}
			return tx.Exec(ctx, `UPDATE credentials SET status = $2
			WHERE kind = 'yubikey' AND id = $1 AND status <> 'revoked'`, publicID, string(status))
		})
}

// AssignKey gives a key to a person, or takes it back for "".
func (o *OTP) AssignKey(ctx context.Context, publicID, person string) error {
	return o.changeKey(ctx, postern.Actor{}, publicID, "assigned", func(ctx context.Context, tx *Tx) (int64, error) {
		if person != "" {
			if _, err := tx.Person(ctx, person); err != nil {
				return 0, err
			}
		}
		return tx.Exec(ctx, `UPDATE credentials SET person = $2
			WHERE kind = 'yubikey' AND id = $1`, publicID, nullable(person))
	})
}

// ClaimKey assigns a key that belongs to no person to one, with a label. It fails
// with [postern.NotFound] if the key has been assigned meanwhile.
func (o *OTP) ClaimKey(ctx context.Context, by postern.Actor, publicID, person, label string) error {
	return o.changeKey(ctx, by, publicID, "assigned", func(ctx context.Context, tx *Tx) (int64, error) {
		return tx.Exec(ctx, `UPDATE credentials SET person = $2, label = CASE WHEN $3 = '' THEN label ELSE $3 END
			WHERE kind = 'yubikey' AND id = $1 AND person IS NULL`, publicID, person, label)
	})
}

// LabelKey names a key.
func (o *OTP) LabelKey(ctx context.Context, publicID, label string) error {
	return o.changeKey(ctx, postern.Actor{}, publicID, "named", func(ctx context.Context, tx *Tx) (int64, error) {
		return tx.Exec(ctx, `UPDATE credentials SET label = $2 WHERE kind = 'yubikey' AND id = $1`, publicID, label)
	})
}

func (o *OTP) changeKey(
	ctx context.Context, by postern.Actor, publicID, what string, change func(context.Context, *Tx) (int64, error),
) error {
	return o.write(ctx, by, func(ctx context.Context, tx *Tx) error {
		n, err := change(ctx, tx)
		if err != nil {
			return err
		}
		if n == 0 {
			return postern.Errorf(postern.NotFound, "no YubiKey %s that can be changed", publicID)
		}
		var person string
		if err := tx.QueryRow(ctx, `SELECT COALESCE(person, '') FROM credentials
			WHERE kind = 'yubikey' AND id = $1`, publicID).Scan(&person); err != nil {
			return err
		}
		if err := tx.Touch(ctx); err != nil {
			return err
		}
		return tx.Append(ctx, postern.Event{
			Kind: postern.EventOTPKeyChanged, Person: person, Object: publicID,
			Reason: what, Links: []postern.Link{yubikeyLink(publicID)},
		})
	})
}

// sealSecret returns what the column otp_keys.sealed holds: private ID and AES
// key, or nothing for a key whose secret is elsewhere.
func (o *OTP) sealSecret(k *otp.Key) ([]byte, error) {
	if k.Secret == nil {
		return nil, nil
	}
	return o.db.Seal(purposeOTPKey, k.PublicID, append(k.Secret.PrivateID[:], k.Secret.Key[:]...))
}

func (o *OTP) unsealSecret(publicID string, sealed []byte) (*otp.Secret, error) {
	plain, err := o.db.Unseal(purposeOTPKey, publicID, sealed)
	if err != nil {
		return nil, err
	}
	var s otp.Secret
	if len(plain) != len(s.PrivateID)+len(s.Key) {
		return nil, postern.Errorf(postern.Internal, "the secret of YubiKey %s has a wrong length", publicID)
	}
	copy(s.PrivateID[:], plain)
	copy(s.Key[:], plain[len(s.PrivateID):])
	return &s, nil
}

// Export returns all keys with their secrets, which are about to leave. The timeline
// says so before it returns.
func (o *OTP) Export(ctx context.Context) ([]*otp.Key, error) {
	keys, err := o.Keys(ctx, "")
	if err != nil {
		return nil, err
	}
	return keys, o.db.Append(ctx, postern.Event{Kind: postern.EventOTPExported, Count: int64(len(keys))})
}
