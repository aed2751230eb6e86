package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
)

// Recover does a recovery.
func (s Portal) Recover(ctx context.Context, by postern.Actor, r portal.Recovery) (portal.Off, error) {
	var off portal.Off
	err := s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) (err error) {
		off, err = tx.recoverPerson(ctx, r)
		return err
	})
	return off, err
}

func (tx *Tx) recoverPerson(ctx context.Context, r portal.Recovery) (off portal.Off, err error) {
	name := r.Event.Person
	if r.Code != nil {
		if err := tx.spendCode(ctx, name, *r.Code); err != nil {
			return off, err
		}
	}
	p, err := tx.Person(ctx, name)
	if err != nil {
		return off, err
	}
	if !p.Active() {
		return off, postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	if off, err = tx.switchOff(ctx, r); err != nil {
		return off, err
	}
	r.Event.Reason += "; " + off.Summary()
	if err := tx.Append(ctx, r.Event); err != nil {
		return off, err
	}
	if r.Next != nil {
		if err := tx.putLink(ctx, *r.Next); err != nil {
			return off, err
		}
	}
	if err := tx.queue(ctx, r.Mail(off)); err != nil {
		return off, err
	}
	return off, tx.Touch(ctx)
}

// spendCode uses a recovery code up, or fails with [portal.ErrCode].
func (tx *Tx) spendCode(ctx context.Context, person string, hash [32]byte) error {
	if err := tx.db.refusing(); err != nil {
		return err
	}
	var id string
	err := tx.QueryRow(ctx, `DELETE FROM portal_codes WHERE person = $1 AND hash = $2
		RETURNING id`, person, hash[:]).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return portal.ErrCode
	}
	if err != nil {
		return err
	}
	return tx.SetCredentialStatus(ctx, postern.RecoveryCode, id, postern.CredentialRevoked)
}

// switchOff invalidates everything that grants a person access, for a recovery.
func (tx *Tx) switchOff(ctx context.Context, r portal.Recovery) (off portal.Off, err error) {
	name, now := r.Event.Person, tx.db.Now()
	n, err := tx.dropCodes(ctx, name)
	if err != nil {
		return off, err
	}
	off.Codes = int(n)
	for _, q := range []struct {
		n   *int
		sql string
	}{
		{&off.Links, `DELETE FROM portal_links WHERE person = $1 AND used = 0 AND expires > $2`},
		{&off.Orders, `DELETE FROM portal_orders WHERE person = $1 AND serial = '' AND expires > $2`},
		// What is used stays: it says that the person has had a second factor.
		{&off.Codes, `UPDATE otp_recovery SET used = $2 WHERE person = $1 AND used = 0`},
	} {
		n, err := tx.Exec(ctx, q.sql, name, micros(now))
		if err != nil {
			return off, err
		}
		*q.n += int(n)
	}
	if err := tx.switchOffCredentials(ctx, r, &off, now); err != nil {
		return off, err
	}
	return off, tx.switchOffACME(ctx, r.Event, &off)
}

// switchOffCredentials revokes a person's certificates and disables their keys.
func (tx *Tx) switchOffCredentials(ctx context.Context, r portal.Recovery, off *portal.Off, now time.Time) error {
	credentials, err := tx.CredentialsOf(ctx, r.Event.Person)
	if err != nil {
		return err
	}
	for _, c := range credentials {
		e := postern.Event{
			Person: c.Person, Address: r.Event.Address, Object: c.ID, Links: []postern.Link{c.Link()},
			Details: r.Event.Details,
		}
		switch c.Kind {
		case postern.X509Certificate, postern.SSHCertificate:
			if c.Status == postern.CredentialRevoked || !c.Expires.After(now) {
				continue
			}
			off.Certificates = append(off.Certificates, c)
			e.Kind, e.Reason = postern.EventSSHRevoked, "recovery"
			if c.Kind == postern.X509Certificate {
				e.Kind, e.Reason = postern.EventCertRevoked, postern.KeyCompromise.String()
			}
		case postern.YubiKey, postern.TOTP, postern.HOTP, postern.SSHKey, postern.Passkey:
			code := c.Kind != postern.SSHKey && c.Kind != postern.Passkey
			if c.Status != postern.CredentialActive || r.KeepOTP && code {
				continue
			}
			off.Keys = append(off.Keys, c)
			e.Kind, e.Reason = postern.EventOTPKeyChanged, "disabled by recovery"
			if c.Kind == postern.Passkey {
				e.Kind = postern.EventPasskeyChanged
			}
			if err := tx.SetCredentialStatus(ctx, c.Kind, c.ID, postern.CredentialDisabled); err != nil {
				return err
			}
		default:
			continue
		}
		if err := tx.Append(ctx, e); err != nil {
			return err
		}
	}
	if _, err := tx.revokeCertificates(ctx, "person", r.Event.Person, postern.KeyCompromise, now); err != nil {
		return err
	}
	_, err = tx.revokeSSH(ctx, "person", r.Event.Person, now)
	return err
}

// switchOffACME disables the keys by which ACME accounts are bound to a person,
// and the accounts.
func (tx *Tx) switchOffACME(ctx context.Context, e postern.Event, off *portal.Off) error {
	rows, err := tx.Query(ctx, `UPDATE acme_external_keys SET disabled = 1 WHERE person = $1 AND disabled = 0
		RETURNING id, label`, e.Person)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id, label string
		if err := rows.Scan(&id, &label); err != nil {
			return err
		}
		if label == "" {
			label = id
		}
		ids, off.ACME = append(ids, id), append(off.ACME, label)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	for _, id := range ids {
		if err := tx.Append(ctx, postern.Event{
			Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: e.Person, Address: e.Address, Object: id,
			Details: map[string]string{"did": postern.ACMEKeyRecovered},
		}); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, `UPDATE acme_accounts SET status = 'revoked'
		WHERE person = $1 AND status = 'valid'`, e.Person)
	return err
}

// Enrol records a certificate, its event, and what goes with it in one transaction.
func (s Portal) Enrol(
	ctx context.Context, by postern.Actor, c ca.Certificate, event postern.Event, e portal.Enrolment,
) (portal.Enrolled, error) {
	var done portal.Enrolled
	err := s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) (err error) {
		if done, err = tx.enrol(ctx, e, c.Serial); err != nil {
			return err
		}
		return tx.addCertificate(ctx, c, event)
	})
	return done, err
}

func (tx *Tx) enrol(ctx context.Context, e portal.Enrolment, serial string) (done portal.Enrolled, err error) {
	if e.Link != nil {
		if err := tx.useLink(ctx, *e.Link, serial, e.Now); err != nil {
			return done, err
		}
	}
	if e.Order != "" {
		n, err := tx.Exec(ctx, `UPDATE portal_orders SET serial = $1 WHERE id = $2 AND serial = ''`, serial, e.Order)
		if err == nil && n == 0 {
			err = postern.Errorf(postern.Conflict, "This order is done, or was dropped.")
		}
		if err != nil {
			return done, err
		}
	}
	if e.Recovery != nil {
		if done.Off, err = tx.recoverPerson(ctx, *e.Recovery); err != nil {
			return done, err
		}
	}
	if done.Codes, err = tx.firstCodes(ctx, e); err != nil {
		return done, err
	}
	if e.Purpose == "" {
		return done, nil
	}
	return done, tx.Append(ctx, postern.Event{
		Kind: postern.EventPortalEnrolled, Outcome: postern.OK, Person: e.Person, Address: e.Address, Object: e.Label,
		Links:   []postern.Link{{Kind: string(postern.X509Certificate), ID: serial}},
		Details: map[string]string{"purpose": string(e.Purpose)},
	})
}

// firstCodes gives recovery codes to a person who has none.
func (tx *Tx) firstCodes(ctx context.Context, e portal.Enrolment) (bool, error) {
	if len(e.Codes) == 0 {
		return false, nil
	}
	var have int
	if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM portal_codes
		WHERE person = $1`, e.Person).Scan(&have); err != nil || have > 0 {
		return false, err
	}
	if err := tx.putCodes(ctx, e.Person, e.Codes, e.Now); err != nil {
		return false, err
	}
	return true, tx.Append(ctx, postern.Event{
		Kind: postern.EventPortalCodes, Outcome: postern.OK, Person: e.Person, Address: e.Address,
		Count: int64(len(e.Codes)),
	})
}
