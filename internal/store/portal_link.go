package store

import (
	"context"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/portal"
)

// PutLink stores a link, queues its message and appends its event.
func (s Portal) PutLink(ctx context.Context, by postern.Actor, f portal.Fresh) error {
	return s.WriteAs(ctx, by, func(ctx context.Context, tx *Tx) error { return tx.putLink(ctx, f) })
}

func (tx *Tx) putLink(ctx context.Context, f portal.Fresh) error {
	if _, err := tx.Exec(ctx, `INSERT INTO portal_links (hash, purpose, person, email, detail, created, expires, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0)`,
		f.Hash[:], string(f.Purpose), f.Person, f.Email, f.Detail, micros(f.Created), micros(f.Expires)); err != nil {
		return err
	}
	if err := tx.queue(ctx, f.Message); err != nil {
		return err
	}
	return tx.Append(ctx, f.Event)
}

// Link returns a link, used or not.
func (s Portal) Link(ctx context.Context, hash [32]byte) (portal.Link, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (portal.Link, error) {
		l := portal.Link{Hash: hash}
		var created, expires, used int64
		err := tx.QueryRow(ctx, `SELECT purpose, person, email, detail, created, expires, used, serial
			FROM portal_links WHERE hash = $1`, hash[:]).
			Scan(&l.Purpose, &l.Person, &l.Email, &l.Detail, &created, &expires, &used, &l.Serial)
		l.Created, l.Expires, l.Used = fromMicros(created), fromMicros(expires), fromMicros(used)
		return l, notFound(err, "there is no such link")
	})
}

// AnswerLink spends a link, stores the proof, if there is one, and appends the
// event.
func (s Portal) AnswerLink(
	ctx context.Context, by postern.Actor, hash [32]byte, now time.Time, p *portal.Proof, e postern.Event,
) error {
	return s.logged(ctx, by, e, func(ctx context.Context, tx *Tx) error {
		if err := tx.useLink(ctx, hash, "", now); err != nil || p == nil {
			return err
		}
		return tx.putProof(ctx, *p)
	})
}

// useLink marks a link used, for a certificate if it has a serial number, or
// fails with [portal.ErrLink] if it was used, or has expired.
func (tx *Tx) useLink(ctx context.Context, hash [32]byte, serial string, now time.Time) error {
	if err := tx.db.refusing(); err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `UPDATE portal_links SET used = $1, serial = $3
		WHERE hash = $2 AND used = 0 AND expires > $1`, micros(now), hash[:], serial)
	if err == nil && n == 0 {
		return portal.ErrLink
	}
	return err
}

// dropLinks makes a person's unused links void: all, or those that were sent to
// an address.
func (tx *Tx) dropLinks(ctx context.Context, person, email string) error {
	_, err := tx.Exec(ctx, `DELETE FROM portal_links
		WHERE person = $1 AND used = 0 AND ($2 = '' OR email = $2)`, person, email)
	return err
}
