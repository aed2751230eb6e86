package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/otp"
)

const oathColumns = `
	SELECT c.kind, c.id, COALESCE(c.person, ''), c.label, c.status, c.created, o.sealed, o.hash, o.digits, o.period,
	o.moving, o.used
	FROM credentials c JOIN otp_oath o ON o.kind = c.kind AND o.id = c.id `

// oathID is what a sealed secret is bound to.
func oathID(o *otp.OATH) string { return string(o.Kind) + "/" + o.ID }

func (o *OTP) scanOATH(scan func(...any) error) (*otp.OATH, error) {
	var d otp.OATH
	var sealed []byte
	var created, period, used int64
	err := scan(&d.Kind, &d.ID, &d.Person, &d.Label, &d.Status, &created, &sealed, &d.Hash, &d.Digits, &period,
		&d.Moving, &used)
	if err != nil {
		return nil, err
	}
	d.Created, d.Used, d.Period = fromMicros(created), fromMicros(used), time.Duration(period)*time.Second
	d.Secret, err = o.db.Unseal(purposeOATH, oathID(&d), sealed)
	return &d, err
}

// oaths returns authenticators, in the order in which they were added.
func (o *OTP) oaths(ctx context.Context, tx *Tx, limit, where string, args ...any) ([]*otp.OATH, error) {
	rows, err := tx.Query(ctx, oathColumns+`WHERE `+where+` ORDER BY c.created, c.id`+limit, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*otp.OATH
	for rows.Next() {
		d, err := o.scanOATH(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// oathsOf returns the authenticators of a page.
func (o *OTP) oathsOf(ctx context.Context, tx *Tx, p Page) ([]*otp.OATH, error) {
	where, args := `1 = 1`, []any{}
	if p.Person != "" {
		where, args = `c.person = $1`, append(args, p.Person)
	}
	if p.After != "" {
		args = append(args, p.After)
		where += fmt.Sprintf(` AND (c.created, c.id) > (SELECT a.created, a.id FROM credentials a
			WHERE a.kind IN ('totp', 'hotp') AND a.id = $%d)`, len(args))
	}
	return o.oaths(ctx, tx, limit(p.Limit), where, args...)
}

// OATHs returns TOTP and HOTP authenticators, whatever their status: a person's, or for
// "" those of all people.
func (o *OTP) OATHs(ctx context.Context, person string) ([]*otp.OATH, error) {
	return readOne(ctx, o.db, func(ctx context.Context, tx *Tx) ([]*otp.OATH, error) {
		return o.oathsOf(ctx, tx, Page{Person: person})
	})
}

// TimeCodes reports whether a person has an authenticator in use that makes codes by time.
func (o *OTP) TimeCodes(ctx context.Context) (bool, error) {
	n, err := o.db.readNumber(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM credentials
		WHERE kind = 'totp' AND status = 'active' LIMIT 1) AS found`)
	return n > 0, err
}

// AddOATH adds an authenticator, TOTP or HOTP. Its Moving says which code was
// used last. A secret that the person has already is a [postern.Conflict].
func (o *OTP) AddOATH(ctx context.Context, by postern.Actor, d *otp.OATH) error {
	return o.write(ctx, by, func(ctx context.Context, tx *Tx) error { return o.addOATH(ctx, tx, d) })
}

func (o *OTP) addOATH(ctx context.Context, tx *Tx, d *otp.OATH) error {
	if err := d.Validate(); err != nil {
		return err
	}
	// With one secret twice, a code that one of them has used is new to the other.
	same, err := o.sameOATH(ctx, tx, d)
	if err != nil {
		return err
	}
	if same != nil {
		return conflictOf(same)
	}
	sealed, err := o.db.Seal(purposeOATH, oathID(d), d.Secret)
	if err != nil {
		return err
	}
	c := postern.Credential{Kind: d.Kind, ID: d.ID, Person: d.Person, Label: d.Label, Status: d.Status}
	if err := tx.PutCredential(ctx, c); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO otp_oath (kind, id, sealed, hash, digits, period, moving, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0)`,
		string(d.Kind), d.ID, sealed, d.Hash, d.Digits, int64(d.Period/time.Second), d.Moving); err != nil {
		return err
	}
	return tx.Append(ctx, postern.Event{
		Kind: postern.EventOTPKeyAdded, Person: d.Person, Object: d.ID, Links: []postern.Link{c.Link()},
	})
}

// SetOATHStatus enables, disables or revokes a device.
func (o *OTP) SetOATHStatus(
	ctx context.Context, by postern.Actor, kind postern.CredentialKind, id string, status postern.CredentialStatus,
) error {
	return o.write(ctx, by, func(ctx context.Context, tx *Tx) error {
		if status == postern.CredentialActive {
			if err := tx.counterKnown(ctx, `otp_oath WHERE id`, id); err != nil {
				return err
			}
		}
		if err := tx.SetCredentialStatus(ctx, kind, id, status); err != nil {
			return err
		}
		c, err := tx.Credential(ctx, kind, id)
		if err != nil {
			return err
		}
		return tx.Append(ctx, postern.Event{
			Kind: postern.EventOTPKeyChanged, Person: c.Person, Object: id,
			Reason: string(status), Links: []postern.Link{c.Link()},
		})
	})
}

// Guess implements [otp.Authenticators].
func (o *OTP) Guess(ctx context.Context, g otp.Guess) (otp.GuessResult, error) {
	if err := o.db.refusing(); err != nil {
		return otp.GuessResult{}, err
	}
	var r otp.GuessResult
	err := o.db.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		r, err = o.guess(ctx, tx, g)
		return err
	})
	if err != nil {
		return otp.GuessResult{}, err
	}
	return r, nil
}

func (o *OTP) guess(ctx context.Context, tx *Tx, g otp.Guess) (otp.GuessResult, error) {
	var r otp.GuessResult
	devices, err := o.oaths(ctx, tx, "", `c.person = $1 AND c.status = 'active' AND EXISTS (SELECT 1 FROM people p
		WHERE p.name = c.person AND p.status = 'active')`, g.Person)
	if r.Authenticators = len(devices); err != nil || r.Authenticators == 0 {
		return r, err
	}
	var wrong, until int64
	err = tx.QueryRow(ctx, `SELECT wrong, locked_until FROM otp_guesses
		WHERE person = $1`, g.Person).Scan(&wrong, &until)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return r, err
	}
	if until > micros(g.Now) {
		r.Until = fromMicros(until)
		return r, nil
	}
	var moving int64
	for _, d := range devices {
		at, ok := d.Match(g.Code, g.Now)
		switch {
		case !ok || r.Verdict == otp.Accepted:
		case at > d.Moving:
			r.Verdict, r.Authenticator, moving = otp.Accepted, d, at
		default:
			r.Verdict, r.Authenticator = otp.Replayed, d
		}
	}
	switch r.Verdict {
	case otp.Replayed:
		return r, nil
	case otp.Accepted:
		return r, acceptGuess(ctx, tx, g, r.Authenticator, moving)
	}
	wrong++
	if d := otp.Lockout(wrong); d > 0 {
		r.Until = g.Now.Add(d)
	}
	return r, setGuesses(ctx, tx, g.Person, wrong, r.Until)
}

func acceptGuess(ctx context.Context, tx *Tx, g otp.Guess, d *otp.OATH, moving int64) error {
	n, err := tx.Exec(ctx, `UPDATE otp_oath SET moving = $3, used = $4 WHERE kind = $1 AND id = $2 AND moving < $3`,
		string(d.Kind), d.ID, moving, micros(g.Now))
	if err != nil {
		return err
	}
	if n != 1 {
		return postern.Errorf(postern.Internal, "the authenticator has changed")
	}
	if err := tx.TouchCredential(ctx, d.Kind, d.ID, g.Now); err != nil {
		return err
	}
	if err := setGuesses(ctx, tx, g.Person, 0, time.Time{}); err != nil {
		return err
	}
	return appendAll(ctx, tx, g.Events(postern.Link{Kind: string(d.Kind), ID: d.ID}))
}

func appendAll(ctx context.Context, tx *Tx, events []postern.Event) error {
	for _, e := range events {
		if err := tx.Append(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func setGuesses(ctx context.Context, tx *Tx, person string, wrong int64, until time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO otp_guesses (person, wrong, locked_until) VALUES ($1, $2, $3)
		ON CONFLICT (person) DO UPDATE SET wrong = excluded.wrong, locked_until = excluded.locked_until`,
		person, wrong, micros(until))
	return err
}

// SetBackupCodes replaces a person's backup codes.
func (o *OTP) SetBackupCodes(ctx context.Context, by postern.Actor, person string, hashes [][32]byte) error {
	return o.write(ctx, by, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Person(ctx, person); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM otp_recovery WHERE person = $1`, person); err != nil {
			return err
		}
		for _, h := range hashes {
			if _, err := tx.Exec(ctx, `INSERT INTO otp_recovery (person, hash, created, used) VALUES ($1, $2, $3, 0)`,
				person, h[:], micros(o.db.Now())); err != nil {
				return err
			}
		}
		return tx.Append(ctx, postern.Event{Kind: postern.EventOTPRecovery, Person: person, Count: int64(len(hashes))})
	})
}

// BackupCodesLeft returns how many backup codes a person has left.
func (o *OTP) BackupCodesLeft(ctx context.Context, person string) (int, error) {
	return readOne(ctx, o.db, func(ctx context.Context, tx *Tx) (n int, err error) {
		err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM otp_recovery WHERE person = $1 AND used = 0`, person).Scan(&n)
		return n, err
	})
}

// UseBackupCode implements [otp.Authenticators].
func (o *OTP) UseBackupCode(
	ctx context.Context, person string, hash [32]byte, events []postern.Event,
) (otp.Verdict, error) {
	if err := o.db.refusing(); err != nil {
		return otp.Refused, err
	}
	verdict := otp.Refused
	err := o.db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		verdict = otp.Refused
		var used int64
		err := tx.QueryRow(ctx, `SELECT r.used FROM otp_recovery r JOIN people p ON p.name = r.person
			WHERE r.person = $1 AND r.hash = $2 AND p.status = 'active'`, person, hash[:]).Scan(&used)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		verdict = otp.Replayed
		n, err := tx.Exec(ctx, `UPDATE otp_recovery SET used = $3
			WHERE person = $1 AND hash = $2 AND used = 0`, person, hash[:], micros(o.db.Now()))
		if err != nil || n == 0 {
			return err
		}
		verdict = otp.Accepted
		return appendAll(ctx, tx, events)
	})
	if err != nil {
		return otp.Refused, err
	}
	return verdict, nil
}

// Factors implements [otp.Authenticators].
func (o *OTP) Factors(ctx context.Context, person string) (int, error) {
	return readOne(ctx, o.db, func(ctx context.Context, tx *Tx) (n int, err error) {
		err = tx.QueryRow(ctx, `SELECT
			(SELECT COUNT(*) FROM credentials WHERE person = $1 AND kind IN ('yubikey', 'totp', 'hotp')) +
			(SELECT COUNT(*) FROM otp_recovery WHERE person = $1)`, person).Scan(&n)
		return n, err
	})
}
