package store

import (
	"context"
	"time"
)

// What is removed, and when. What a rule needs stays for ever: the timeline; CAs, their
// certificates and lists; SSH keys that were revoked, and certificates whose key others
// may know, since such a key is not certified again; the counters of YubiKeys, also of
// disabled ones, since no code is accepted twice.
const (
	// LeastKept is the least time for which expired certificates are kept. No revocation
	// list needs them any more: those of intermediates are valid for a week.
	LeastKept = 30 * 24 * time.Hour
	// signersKept is how long expired certificates of OCSP signers are kept: nothing names
	// them but the answers that they signed, which have expired before.
	signersKept = 24 * time.Hour
	// removedAtOnce is the number of certificates that are removed in one write.
	removedAtOnce = 500
)

// expired are the certificates to be removed: those that had expired at $1, and what is
// removed with each.
var expired = []struct {
	find   string
	remove []string
	soon   bool // after signersKept
}{
	{
		`SELECT serial FROM ca_certificates WHERE not_after < $1 AND profile = 'ocsp' ORDER BY not_after LIMIT $2`,
		[]string{`DELETE FROM ca_certificates WHERE serial = $1`},
		true,
	},
	{
		`SELECT serial FROM ca_certificates WHERE not_after < $1 AND profile NOT IN ('intermediate', 'cross', 'ocsp')
			AND reason <> 1 ORDER BY not_after LIMIT $2`,
		[]string{
			`DELETE FROM ca_certificates WHERE serial = $1 AND reason <> 1`,
			`DELETE FROM credentials WHERE kind = 'x509' AND id = $1`,
			`DELETE FROM portal_reminders WHERE serial = $1`,
			`DELETE FROM host_certificates WHERE serial = $1`,
		},
		false,
	},
	{
		`SELECT CAST(serial AS TEXT) FROM ssh_certificates WHERE valid_before < $1 ORDER BY valid_before LIMIT $2`,
		[]string{
			`DELETE FROM ssh_certificates WHERE serial = CAST(CAST($1 AS TEXT) AS BIGINT)`,
			`DELETE FROM credentials WHERE kind = 'ssh-cert' AND id = $1`,
		},
		false,
	},
}

// RemoveExpired removes certificates that expired more than a time ago, at least LeastKept,
// and what is kept with them; of hosts' tokens those that have expired. Each write removes a
// few hundred, so that others need not wait for all. It returns how many certificates it
// removed.
func (s CA) RemoveExpired(ctx context.Context, now time.Time, kept time.Duration) (removed int, err error) {
	for _, e := range expired {
		before := now.Add(-max(kept, LeastKept))
		if e.soon {
			before = now.Add(-signersKept)
		}
		for n := removedAtOnce; n == removedAtOnce; removed += n {
			if n, err = s.removeExpired(ctx, e.find, e.remove, before); err != nil {
				return removed, err
			}
		}
	}
	return removed, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM host_tokens WHERE expires < $1`, micros(now))
		return err
	})
}

func (s CA) removeExpired(ctx context.Context, find string, remove []string, before time.Time) (n int, err error) {
	serials, err := readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) ([]string, error) {
		return tx.strings(ctx, find, micros(before), removedAtOnce)
	})
	if err != nil || len(serials) == 0 {
		return 0, err
	}
	return len(serials), s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		for _, serial := range serials {
			for _, statement := range remove {
				if _, err := tx.Exec(ctx, statement, serial); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// strings returns the one column of a query's rows.
func (tx *Tx) strings(ctx context.Context, query string, args ...any) (list []string, err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

// Kept is how many rows of one kind the database holds.
type Kept struct {
	What  string
	Count int64
}

// Kept counts what grows with use, besides the timeline.
func (db *DB) Kept(ctx context.Context) (list []Kept, err error) {
	for _, k := range []struct{ what, table string }{
		{"X.509 certificates", "ca_certificates"},
		{"SSH certificates", "ssh_certificates"},
		{"credentials", "credentials"},
		{"ACME orders", "acme_orders"},
		{"mails to send", "portal_mail"},
	} {
		var n int64
		if err := db.row(ctx, `SELECT COUNT(*) FROM `+k.table).Scan(&n); err != nil {
			return nil, db.wrap(err, "count "+k.what)
		}
		list = append(list, Kept{k.what, n})
	}
	return list, nil
}
