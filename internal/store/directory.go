package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/directory"
)

var _ directory.Store = Directory{}

// Directory keeps which people are those of LDAP directories: it is the
// [directory.Store].
type Directory struct{ *DB }

// Directory returns the directories' part of the database.
func (db *DB) Directory() Directory { return Directory{db} }

// DirectoryState is a directory and when it was read.
type DirectoryState struct {
	Config directory.Config
	Synced time.Time // zero if it never was
	Failed string    // why it cannot be read; "" if it can
}

// Use makes a directory the one that people are taken from; nil, none. People of another
// keep their status, and lose the groups that it gave them.
func (s Directory) Use(ctx context.Context, c *directory.Config) error {
	name, text := "", []byte("{}")
	if c != nil {
		full := c.WithDefaults()
		var err error
		if text, err = json.Marshal(full); err != nil {
			return err
		}
		name = full.Name
	}
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		for _, q := range []string{
			`DELETE FROM directory_groups
				WHERE person IN (SELECT person FROM directory_people WHERE directory <> $1)`,
			`DELETE FROM directory_people WHERE directory <> $1`,
			`DELETE FROM directories WHERE name <> $1`,
		} {
			n, err := tx.Exec(ctx, q, name)
			if err != nil {
				return err
			}
			if n > 0 {
				if err := tx.Touch(ctx); err != nil {
					return err
				}
			}
		}
		if c == nil {
			return nil
		}
		_, err := tx.Exec(ctx, `INSERT INTO directories (name, config, synced, failed, expired)
			VALUES ($1, $2, 0, '', 0)
			ON CONFLICT (name) DO UPDATE SET config = excluded.config`, name, string(text))
		return err
	})
}

// State returns the directory that people are taken from, or [postern.NotFound].
func (s Directory) State(ctx context.Context) (DirectoryState, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (d DirectoryState, err error) {
		var text string
		var synced int64
		err = tx.QueryRow(ctx, `SELECT config, synced, failed FROM directories ORDER BY name LIMIT 1`).
			Scan(&text, &synced, &d.Failed)
		if err != nil {
			return d, notFound(err, "people are not taken from a directory")
		}
		d.Synced = fromMicros(synced)
		return d, json.Unmarshal([]byte(text), &d.Config)
	})
}

// Failed implements [directory.Store].
func (s Directory) Failed(
	ctx context.Context, name, why string, keep time.Duration,
) (changes directory.Changes, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		changes, err = tx.directoryFailed(ctx, name, why, keep)
		return err
	})
	return changes, err
}

func (tx *Tx) directoryFailed(
	ctx context.Context, name, why string, keep time.Duration,
) (changes directory.Changes, err error) {
	var synced, expired int64
	var failed string
	err = tx.QueryRow(ctx, `SELECT synced, failed, expired FROM directories WHERE name = $1`, name).
		Scan(&synced, &failed, &expired)
	if errors.Is(err, sql.ErrNoRows) {
		return changes, nil // another configuration has taken its place
	}
	if err != nil {
		return changes, err
	}
	if failed == "" {
		e := postern.Event{Kind: postern.EventDirectory, Outcome: postern.Failed, Object: name, Reason: why}
		if err := tx.Append(ctx, e); err != nil {
			return changes, err
		}
	}
	if synced != 0 && expired == 0 && tx.db.Now().Sub(fromMicros(synced)) > keep {
		expired = 1
		if changes, err = tx.expireDirectory(ctx, name); err != nil {
			return changes, err
		}
	}
	_, err = tx.Exec(ctx, `UPDATE directories SET failed = $2, expired = $3 WHERE name = $1`, name, why, expired)
	return changes, err
}

// expireDirectory suspends all people of a directory that could not be read for too
// long.
func (tx *Tx) expireDirectory(ctx context.Context, name string) (changes directory.Changes, err error) {
	d, err := tx.beginSync(ctx, name)
	if err != nil {
		return changes, err
	}
	for _, l := range d.linked {
		if err := d.suspend(ctx, l, "the directory "+name+" could not be read for too long"); err != nil {
			return d.changes, err
		}
	}
	return d.changes, nil
}
