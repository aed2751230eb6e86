package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	purposeKey = "key" // sealed column keys.sealed
	logKeyName = "log" // the timeline's signing key, in table keys
)

// openLog reads the timeline's key, or makes it together with the log's first
// line. A key-encrypting key that is not this database's shows here.
func (db *DB) openLog(ctx context.Context) error {
	key, err := db.logKey(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		if err = db.createLog(ctx); err == nil || postern.CodeOf(err) == postern.Conflict {
			key, err = db.logKey(ctx) // another server may have been first
		}
	}
	if err != nil {
		return db.wrap(err, "open the timeline")
	}
	if db.signer, err = note.NewSigner(key.Secret); err != nil {
		return fmt.Errorf("the timeline's key: %w", err)
	}
	db.verifier = key.Verifier
	return nil
}

func (db *DB) logKey(ctx context.Context) (timeline.Key, error) {
	var sealed []byte
	var key timeline.Key
	err := db.Read(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT sealed, public FROM keys
			WHERE name = $1`, logKeyName).Scan(&sealed, &key.Verifier)
	})
	if err != nil {
		return key, err
	}
	secret, err := db.Unseal(purposeKey, logKeyName, sealed)
	key.Secret = string(secret)
	return key, err
}

func (db *DB) createLog(ctx context.Context) error {
	key, err := timeline.NewKey()
	if err != nil {
		return err
	}
	sealed, err := db.Seal(purposeKey, logKeyName, []byte(key.Secret))
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(key.Secret)
	if err != nil {
		return err
	}
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO keys (name, sealed, public, created) VALUES ($1, $2, $3, $4)`,
			logKeyName, sealed, key.Verifier, micros(db.Now())); err != nil {
			return err
		}
		tx.signer = signer
		return tx.Append(ctx, postern.Event{Kind: postern.EventLogCreated, Object: signer.Name()})
	})
}

// LogVerifier returns the timeline's public key, in note's encoding. It is
// enough to check checkpoints and proofs, without the database.
func (s Timeline) LogVerifier() string { return s.verifier }

// errWentBack says that a database in use was replaced by an older one, as by a standby
// that had not received everything.
var errWentBack = postern.Errorf(postern.Unavailable, "the database is older than what was committed to it").
	WithHint("accept the restored database, which disables what may have been used since")

// appendEvents writes the batch's events, the tiles of the tree that they
// finish, its edge, and one signed checkpoint.
func (db *DB) appendEvents(ctx context.Context, tx *Tx) error {
	signer := db.signer
	if tx.signer != nil {
		signer = tx.signer
	}
	tree, err := db.loadTree(tx)
	if err != nil {
		return err
	}
	from := tree.Size()
	var entries, links [][]any
	for i := range tx.events {
		e := tx.events[i]
		e.Index = tree.Size()
		line, err := timeline.Encode(e)
		if err != nil {
			return err
		}
		tree.Append(tlog.RecordHash(line))
		entries = append(entries, []any{
			e.Index, micros(e.Time), e.Kind, string(e.Outcome), e.Person, e.Address, e.Object, string(line),
		})
		for _, l := range e.Links {
			links = append(links, []any{l.Kind, l.ID, e.Index})
		}
	}
	if err := tx.addBlocks(ctx, from, tx.events); err != nil {
		return err
	}
	tx.insertLater(`INSERT INTO log_events (idx, time, kind, outcome, person, address, object, line)`, entries)
	tx.insertLater(`INSERT INTO log_links (kind, id, idx)`, links)
	for _, t := range tree.Finished() {
		tx.later(`INSERT INTO log_tiles (level, n, data) VALUES ($1, $2, $3)`, t.Level, t.N, t.Data)
	}
	signed, err := timeline.Checkpoint{Origin: signer.Name(), Size: tree.Size(), Root: tree.Root()}.Sign(signer)
	if err != nil {
		return err
	}
	tx.tree, tx.signed = tree, signed
	tx.later(`INSERT INTO log_state (id, size, edge, checkpoint) VALUES (1, $1, $2, $3)
		ON CONFLICT (id) DO UPDATE SET size = excluded.size, edge = excluded.edge, checkpoint = excluded.checkpoint`,
		tree.Size(), tree.Edge(), signed)
	return nil
}

// stateOf is the query for the state of the timeline that a transaction appends to.
func stateOf(tx *Tx) statement {
	return statement{
		query: `SELECT size, edge, checkpoint FROM log_state WHERE id = 1`,
		read: func(rows found) error {
			for rows.Next() {
				tx.state = new(timeline.State)
				if err := rows.Scan(&tx.state.Size, &tx.state.Edge, &tx.state.Checkpoint); err != nil {
					return err
				}
			}
			return rows.Err()
		},
	}
}

// loadTree returns the tree to append to: that of the last batch if no other server
// has appended since, else the one in the database. It fails unless that is the tree
// that the checkpoint signs: a log that was tampered with is not signed again.
func (db *DB) loadTree(tx *Tx) (*timeline.Tree, error) {
	s := tx.state
	switch {
	case s == nil && tx.signer != nil:
		return new(timeline.Tree), nil
	case s == nil:
		return nil, errNoCheckpoint
	case s.Size < db.reached.Load():
		return nil, errWentBack
	case db.tree != nil && s.Checkpoint == db.signed:
		return db.tree.Clone(), nil
	}
	tree, err := timeline.LoadTree(s.Size, s.Edge)
	if err != nil {
		return nil, fmt.Errorf("read the tree: %w", err)
	}
	verifier, err := note.NewVerifier(db.verifier)
	if err != nil {
		return nil, err
	}
	c, err := timeline.OpenCheckpoint(s.Checkpoint, verifier)
	if err != nil {
		return nil, err
	}
	if c.Size != s.Size || c.Root != tree.Root() {
		return nil, postern.Errorf(postern.Internal,
			"the timeline was tampered with: its tree is not the one that was signed").
			WithHint("verify the timeline, and restore the database from a backup")
	}
	return tree, nil
}

// commitTree remembers the tree of a batch that is durable now.
func (db *DB) commitTree(tx *Tx) {
	if tx.tree != nil {
		db.tree, db.signed = tx.tree, tx.signed
		db.reached.Store(tx.tree.Size())
	}
}

// mark passes the checkpoint of a durable batch to whom [DB.OnCommit] named.
func (db *DB) mark(tx *Tx) error {
	f := db.marked.Load()
	if tx.tree == nil || f == nil {
		return nil
	}
	return (*f)(timeline.Checkpoint{Size: tx.tree.Size(), Root: tx.tree.Root()}, tx.signed)
}
