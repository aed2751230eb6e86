package store

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
)

// AddRoot implements [ca.Store].
func (s CA) AddRoot(
	ctx context.Context, issuers []ca.Issuer, certs []ca.Certificate, old string, cross []byte,
	events ...postern.Event,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.addIssuers(ctx, issuers, certs, events); err != nil || cross == nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE ca_issuers SET cross_signed = $2 WHERE id = $1`, old, cross)
		return err
	})
}

// Retire implements [ca.Store].
func (s CA) Retire(
	ctx context.Context, ids, serials []string, revoke bool, at time.Time, event postern.Event,
) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		n, err := tx.retireIssuers(ctx, ids, revoke, at)
		if err != nil {
			return err
		}
		for _, serial := range serials {
			if _, err := tx.revokeCertificates(ctx, "serial", serial, postern.CessationOfOperation, at); err != nil {
				return err
			}
		}
		if err := tx.sshChanged(ctx); err != nil { // the KRL holds the keys of retired CAs
			return err
		}
		e := event
		e.Details = maps.Clone(event.Details)
		e.Details["certificates"] = strconv.Itoa(n)
		return tx.Append(ctx, e)
	})
}

// retireIssuers marks CAs as retired and returns how many of their certificates it revoked.
func (tx *Tx) retireIssuers(ctx context.Context, ids []string, revoke bool, at time.Time) (n int, err error) {
	valid, err := tx.outstanding(ctx, at)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		n += valid[id] // none of a root: its certificates are the CAs' own
		if err := tx.retireIssuer(ctx, id, id == ids[0], at); err != nil {
			return 0, err
		}
		if !revoke || valid[id] == 0 {
			continue
		}
		if _, err := tx.revokeCertificates(ctx, "issuer", id, postern.CessationOfOperation, at); err != nil {
			return 0, err
		}
		if _, err := tx.revokeSSH(ctx, "issuer", id, at); err != nil {
			return 0, err
		}
	}
	if n > 0 && !revoke {
		return 0, postern.Errorf(postern.Conflict, "%d certificates that %s issued are valid", n, ids[0]).
			WithHint("see who has certificates of the older CA, and renew them, or revoke them with it")
	}
	return n, nil
}

// retireIssuer marks a CA as retired. It fails with [postern.Conflict] if another process has meanwhile retired
// it, for the anchor itself, or the last other one of its role.
func (tx *Tx) retireIssuer(ctx context.Context, id string, anchor bool, at time.Time) error {
	changed, err := tx.Exec(ctx, `UPDATE ca_issuers SET retired = $2 WHERE id = $1 AND retired = 0`, id, micros(at))
	if err != nil {
		return err
	}
	if anchor && changed == 0 {
		return postern.Errorf(postern.Conflict, "%s was retired already", id)
	}
	var left bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM ca_issuers WHERE retired = 0 AND revoked = 0
		AND role = (SELECT role FROM ca_issuers WHERE id = $1))`, id).Scan(&left); err != nil {
		return err
	}
	if !left {
		return postern.Errorf(postern.Conflict, "nothing would issue in the place of %s", id).
			WithHint("make its successor first")
	}
	return nil
}

// Outstanding implements [ca.Store].
func (s CA) Outstanding(ctx context.Context, now time.Time) (map[string]int, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (map[string]int, error) {
		return tx.outstanding(ctx, now)
	})
}

// outstanding counts the valid certificates of each CA that are others' than its own.
func (tx *Tx) outstanding(ctx context.Context, now time.Time) (map[string]int, error) {
	rows, err := tx.Query(ctx, `SELECT issuer, COUNT(*) FROM ca_certificates
		WHERE revoked = 0 AND not_after > $1 AND profile NOT IN ('intermediate', 'cross', 'ocsp') GROUP BY issuer
		UNION ALL SELECT issuer, COUNT(*) FROM ssh_certificates
		WHERE revoked = 0 AND valid_before > $1 GROUP BY issuer`, micros(now))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[string]int{}
	for rows.Next() {
		var id string
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			return nil, err
		}
		counts[id] = n
	}
	return counts, rows.Err()
}
