package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	purposeKey = "key" // sealed column keys.sealed
	logKeyName = "log" // the timeline's signing key, in table keys
)

// logKeys are the keys of the timeline: the signers, oldest first, and the public keys as
// [timeline.ParseKeys] reads them, with those that were retired.
type logKeys struct {
	signers []note.Signer
	public  string
}

// openLog reads the timeline's keys, or makes one together with the log's first
// line. A key-encrypting key that is not this database's shows here.
func (db *DB) openLog(ctx context.Context) error {
	keys, err := db.readLogKeys(ctx)
	if errors.Is(err, errNoLog) {
		if err = db.createLog(ctx); err == nil || postern.CodeOf(err) == postern.Conflict {
			keys, err = db.readLogKeys(ctx) // another server may have been first
		}
	}
	if err != nil {
		return db.wrap(err, "open the timeline")
	}
	db.keys.Store(keys)
	return nil
}

func (db *DB) readLogKeys(ctx context.Context) (*logKeys, error) {
	return readOne(ctx, db, func(ctx context.Context, tx *Tx) (*logKeys, error) { return tx.logKeys(ctx) })
}

// errNoLog says that the timeline has no key yet.
var errNoLog = errors.New("there is no timeline yet")

// logKeys reads the timeline's keys. The sealed secret of a retired one is empty.
func (tx *Tx) logKeys(ctx context.Context) (*logKeys, error) {
	rows, err := tx.Query(ctx, `SELECT name, sealed, public FROM keys WHERE name = $1 OR name LIKE $2
		ORDER BY LENGTH(name), name`, logKeyName, logKeyName+"-%")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var keys logKeys
	var retired, inUse []string
	for rows.Next() {
		var name, public string
		var sealed []byte
		if err := rows.Scan(&name, &sealed, &public); err != nil {
			return nil, err
		}
		secret, err := tx.db.Unseal(purposeKey, name, sealed)
		if err != nil {
			return nil, err
		}
		if len(secret) == 0 {
			retired = append(retired, public)
			continue
		}
		signer, err := note.NewSigner(string(secret))
		if err != nil {
			return nil, fmt.Errorf("the timeline's key: %w", err)
		}
		keys.signers, inUse = append(keys.signers, signer), append(inUse, public)
	}
	if len(inUse) == 0 {
		return nil, cmp.Or(rows.Err(), error(errNoLog))
	}
	keys.public = timeline.FormatKeys(retired, inUse)
	return &keys, rows.Err()
}

func (db *DB) createLog(ctx context.Context) error {
	key, err := timeline.NewKey()
	if err != nil {
		return err
	}
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.addLogKey(ctx, logKeyName, key); err != nil {
			return err
		}
		name, _, _ := strings.Cut(key.Verifier, "+")
		return tx.Append(ctx, postern.Event{Kind: postern.EventLogCreated, Object: name})
	})
}

// addLogKey keeps a key of the timeline, which signs this write's checkpoint too.
func (tx *Tx) addLogKey(ctx context.Context, name string, key timeline.Key) error {
	sealed, err := tx.db.Seal(purposeKey, name, []byte(key.Secret))
	if err != nil {
		return err
	}
	tx.newKeys = true
	_, err = tx.Exec(ctx, `INSERT INTO keys (name, sealed, public, created) VALUES ($1, $2, $3, $4)`,
		name, sealed, key.Verifier, micros(tx.db.Now()))
	return err
}

// LogVerifier returns the timeline's public keys, as [timeline.ParseKeys] reads them: one,
// unless another has followed it. They are enough to check checkpoints and proofs, without
// the database.
func (s Timeline) LogVerifier() string { return s.keys.Load().public }

// logVerifier returns the timeline's public keys as they are in the database now: another
// process may have made or retired one.
func (tx *Tx) logVerifier(ctx context.Context) (timeline.Keys, error) {
	keys, err := tx.logKeys(ctx)
	if err != nil {
		return timeline.Keys{}, err
	}
	return timeline.ParseKeys(keys.public)
}

// presentKeys is logVerifier in a transaction of its own.
func (s Timeline) presentKeys(ctx context.Context) (timeline.Keys, error) {
	return readOne(ctx, s.DB, func(ctx context.Context, tx *Tx) (timeline.Keys, error) { return tx.logVerifier(ctx) })
}

// LearnKeys reads the timeline's keys again, and reports whether another process has made or retired one that
// [Timeline.LogVerifier] did not say. A server learns that by itself when it writes next.
func (s Timeline) LearnKeys(ctx context.Context) bool {
	was := s.keys.Load()
	now, err := s.readLogKeys(ctx)
	if err != nil || now.public == was.public {
		return false
	}
	s.keys.CompareAndSwap(was, now) // or a write has learned them meanwhile
	return true
}

// NewLogKey makes the next signing key of the timeline. From now on the key before it and
// this one both sign each checkpoint. It fails with Conflict if two keys sign already.
func (s Timeline) NewLogKey(ctx context.Context) (public string, err error) {
	key, err := timeline.NextKey(s.keys.Load().signers[0].Name())
	if err != nil {
		return "", err
	}
	return key.Verifier, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		keys, err := tx.logKeys(ctx)
		switch {
		case err != nil:
			return err
		case len(keys.signers) > 1:
			return postern.Errorf(postern.Conflict, "two keys sign the timeline already").
				WithHint("retire the older key of the timeline first")
		}
		name := fmt.Sprintf("%s-%d", logKeyName, 2+strings.Count(keys.public, "\n"))
		if err := tx.addLogKey(ctx, name, key); err != nil {
			return err
		}
		return tx.Append(ctx, postern.Event{Kind: postern.EventLogKeyAdded, Object: key.Verifier})
	})
}

// RetireLogKey ends the use of the older of two keys: its secret is removed, and checkpoints
// are signed by the newer one alone. It fails with Conflict if one key signs.
func (s Timeline) RetireLogKey(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		keys, err := tx.logKeys(ctx)
		switch {
		case err != nil:
			return err
		case len(keys.signers) < 2:
			return postern.Errorf(postern.Conflict, "one key signs the timeline").
				WithHint("make the next key of the timeline first")
		}
		old, _, _ := strings.Cut(keys.public, "\n")
		var name string
		if err := tx.QueryRow(ctx, `SELECT name FROM keys WHERE public = $1`, old).Scan(&name); err != nil {
			return err
		}
		sealed, err := tx.db.Seal(purposeKey, name, nil)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE keys SET sealed = $2 WHERE name = $1`, name, sealed); err != nil {
			return err
		}
		tx.newKeys = true
		return tx.Append(ctx, postern.Event{Kind: postern.EventLogKeyRetired, Object: old})
	})
}

// errWentBack says that a database in use was replaced by an older one, as by a standby
// that had not received everything.
var errWentBack = postern.Errorf(postern.Unavailable, "the database is older than what was committed to it").
	WithHint("accept the restored database, which disables what may have been used since")

// appendEvents writes the batch's events, the tiles of the tree that they
// finish, its edge, and one signed checkpoint.
func (db *DB) appendEvents(ctx context.Context, tx *Tx) error {
	tree, err := db.loadTree(ctx, tx)
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
		k := keep(e, string(line))
		entries = append(entries, []any{
			k.index, k.time, k.kind, k.outcome, k.person, k.address, k.object, k.line,
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
	if err := tx.putTiles(ctx, tree.Finished()); err != nil {
		return err
	}
	signers := tx.keys.signers
	signed, err := timeline.Checkpoint{
		Origin: signers[0].Name(), Size: tree.Size(), Root: tree.Root(),
	}.Sign(signers...)
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
// that the checkpoint signs: a log that was tampered with is not signed again. It sets the
// keys that sign next.
func (db *DB) loadTree(ctx context.Context, tx *Tx) (_ *timeline.Tree, err error) {
	s := tx.state
	switch {
	case s == nil && tx.newKeys:
		tx.keys, err = tx.logKeys(ctx)
		return new(timeline.Tree), err
	case s == nil:
		return nil, errNoCheckpoint
	case s.Size < db.reached.Load():
		return nil, errWentBack
	}
	if tx.keys, err = db.signingKeys(ctx, tx, s.Checkpoint); err != nil {
		return nil, err
	}
	if db.tree != nil && s.Checkpoint == db.signed {
		return db.tree.Clone(), nil
	}
	tree, err := timeline.LoadTree(s.Size, s.Edge)
	if err != nil {
		return nil, fmt.Errorf("read the tree: %w", err)
	}
	keys, err := timeline.ParseKeys(tx.keys.public)
	if err != nil {
		return nil, err
	}
	c, err := timeline.OpenLatest(s.Checkpoint, keys)
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

// signingKeys returns the keys that sign the next checkpoint. Those that another server has
// made or retired show by the signatures of the last one.
func (db *DB) signingKeys(ctx context.Context, tx *Tx, last string) (*logKeys, error) {
	keys := db.keys.Load()
	if keys != nil && !tx.newKeys && (last == db.signed || timeline.SignedBy(last, keys.signers)) {
		return keys, nil
	}
	return tx.logKeys(ctx)
}

// commitTree remembers the tree of a batch that is durable now.
func (db *DB) commitTree(tx *Tx) {
	if tx.tree != nil {
		db.tree, db.signed = tx.tree, tx.signed
		db.keys.Store(tx.keys)
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
