package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/postern-project/postern"
)

// Snapshot writes the SQLite database as it is at one moment to a new file, while it
// is read and written. Invalid for a PostgreSQL database, which has programs for that.
func (db *DB) Snapshot(ctx context.Context, path string) error {
	s, ok := db.backend.(*sqlite)
	if !ok {
		return postern.Errorf(postern.Invalid, "the database is PostgreSQL's").WithHint("dump it with pg_dump")
	}
	conn, err := sql.Open("sqlite", s.dsn())
	if err != nil {
		return db.wrap(err, "copy the database")
	}
	defer conn.Close()
	_, err = conn.ExecContext(ctx, `VACUUM INTO $1`, path)
	if err != nil {
		return postern.Errorf(postern.Unavailable, "copy the database to %s: %w", path, err).
			WithHint("see that there is space for it")
	}
	return nil
}

// Facts say what a database holds.
type Facts struct {
	People  int64     `json:"people"`  // that are not removed
	Keys    int64     `json:"keys"`    // YubiKeys and authenticators that are not revoked
	Entries int64     `json:"entries"` // of the timeline
	Newest  time.Time `json:"newest"`  // the time of its newest entry
}

// Facts returns what the database holds.
func (db *DB) Facts(ctx context.Context) (Facts, error) {
	return readOne(ctx, db, func(ctx context.Context, tx *Tx) (f Facts, err error) {
		var newest int64
		err = tx.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM people WHERE status <> 'removed'),
			(SELECT COUNT(*) FROM credentials WHERE kind IN ('yubikey', 'totp', 'hotp') AND status <> 'revoked'),
			size, COALESCE((SELECT time FROM log_events WHERE idx = size - 1), 0)
			FROM log_state WHERE id = 1`).Scan(&f.People, &f.Keys, &f.Entries, &newest)
		f.Newest = fromMicros(newest)
		return f, err
	})
}

// CheckKeys checks that every sealed secret was sealed under a key that is here, which is
// told from its name: Invalid if not.
func (db *DB) CheckKeys(ctx context.Context) error {
	seals := *db.seals.Load()
	return db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		for _, c := range sealedColumns {
			if err := c.checkKeys(ctx, tx, seals); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c sealedColumn) checkKeys(ctx context.Context, tx *Tx, seals sealer) error {
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT DISTINCT substr(%[1]s, 1, %[2]d) FROM %[3]s
		WHERE %[1]s IS NOT NULL`,
		c.column, 1+sealKeyID, c.table))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var head []byte
		if err := rows.Scan(&head); err != nil {
			return err
		}
		if !seals.has(head) {
			return postern.Errorf(postern.Invalid,
				"secrets in the database are sealed under another key-encrypting key")
		}
	}
	return rows.Err()
}

// has reports whether a sealed value that begins so was sealed under one of the keys.
func (s sealer) has(head []byte) bool {
	for _, k := range s {
		if len(head) == 1+sealKeyID && [sealKeyID]byte(head[1:]) == k.id {
			return true
		}
	}
	return false
}
