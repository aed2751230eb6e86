package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// Tx is a transaction, valid inside the function that it was given to, and in
// one goroutine at a time.
type Tx struct {
	db      *DB
	run     runner
	write   bool
	events  []postern.Event // appended when the batch commits
	newKeys bool            // the log's keys may be others than the DB has
	keys    *logKeys        // that sign after the events
	address string          // of events that have none: the actor's

	send   func(ctx context.Context, list ...statement) error // the writer's
	queued []statement                                        // for later
	lost   error                                              // of one that failed: so does the transaction
	looked *request                                           // whose lookup was run at the beginning
	state  *timeline.State                                    // before the events; nil if there is none

	tree   *timeline.Tree // after the events
	signed string         // its checkpoint
}

// runner runs statements: a read transaction, or the writer's connection.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Exec runs a statement and returns the number of rows that it changed.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := tx.flush(ctx); err != nil {
		return 0, err
	}
	res, err := tx.run.ExecContext(tx.context(ctx), query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Query runs a query. The rows must be closed before the next statement.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := tx.flush(ctx); err != nil {
		return nil, err
	}
	return tx.run.QueryContext(tx.context(ctx), query, args...)
}

// QueryRow runs a query for at most one row; with none, Scan returns
// [sql.ErrNoRows].
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	_ = tx.flush(ctx) // an error is the transaction's, which keeps it
	return tx.run.QueryRowContext(tx.context(ctx), query, args...)
}

// context returns the context that a statement runs under. A statement of a
// Write is never interrupted: others share its transaction, and SQLite rolls
// back all of it.
func (tx *Tx) context(ctx context.Context) context.Context {
	if tx.write {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// Append adds an event to the timeline when the transaction commits. Its index
// is assigned then; a zero Time becomes the time of now, and an empty Address that
// of the actor whom [DB.WriteAs] writes for.
func (tx *Tx) Append(ctx context.Context, e postern.Event) error {
	if !tx.write {
		return postern.Errorf(postern.Internal, "append to the timeline in a read transaction")
	}
	if e.Kind == "" {
		return postern.Errorf(postern.Internal, "append an event without a kind to the timeline")
	}
	if e.Time.IsZero() {
		e.Time = tx.db.Now()
	}
	if e.Outcome == "" {
		e.Outcome = postern.OK
	}
	if e.Address == "" {
		e.Address = tx.address
	}
	tx.events = append(tx.events, timeline.Clean(e))
	return nil
}

// Touch says that who may pass has changed: the generation grows.
func (tx *Tx) Touch(ctx context.Context) error {
	_, err := tx.Exec(ctx, `UPDATE counters SET value = value + 1 WHERE name = 'generation'`)
	return err
}

// Generation returns a number that grows whenever it changes who may pass: a
// person, a credential, a certificate or a CA. It is cheap: one row by its key.
func (db *DB) Generation(ctx context.Context) (int64, error) {
	return db.readNumber(ctx, `SELECT value FROM counters WHERE name = 'generation'`)
}

// Append adds events to the timeline, all of them or none.
func (db *DB) Append(ctx context.Context, events ...postern.Event) error {
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		for _, e := range events {
			if err := tx.Append(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// Read runs f in a read-only transaction that sees one state of the database.
// f may be run again, and so must have no effects besides its results.
func (db *DB) Read(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	return db.again(ctx, func() error { return db.readOnce(ctx, f) })
}

// readNumber runs a query for one number, outside of any transaction.
func (db *DB) readNumber(ctx context.Context, query string) (n int64, err error) {
	err = db.again(ctx, func() error { return db.row(ctx, query).Scan(&n) })
	return n, err
}

// row runs a constant query for one row by its key, outside of any transaction.
// A database in this process prepares it once, and is not interrupted in it:
// to watch for the end of ctx would take longer than the query.
func (db *DB) row(ctx context.Context, query string, args ...any) *sql.Row {
	if !db.backend.cacheStatements() {
		return db.read.QueryRowContext(ctx, query, args...)
	}
	ctx = context.WithoutCancel(ctx)
	kept, ok := db.rows.Load(query)
	if !ok {
		stmt, err := db.read.PrepareContext(ctx, query)
		if err != nil {
			return db.read.QueryRowContext(ctx, query, args...) // says why itself
		}
		var lost bool
		if kept, lost = db.rows.LoadOrStore(query, stmt); lost {
			_ = stmt.Close() //nolint:sqlclosecheck // the one that was first is kept as long as the database is open
		}
	}
	return kept.(*sql.Stmt).QueryRowContext(ctx, args...)
}

// readTries is how often something is read when its connection is lost or it
// loses against another transaction.
const readTries = 3

func (db *DB) again(ctx context.Context, read func() error) error {
	var err error
	for range readTries {
		if err = read(); err == nil || ctx.Err() != nil {
			break
		}
		k := db.faultOf(err)
		if k != faultRace && k != faultConn {
			break
		}
		if k == faultConn { // the others will be lost too
			db.read.SetMaxIdleConns(0)
			db.read.SetMaxIdleConns(readConns)
		}
	}
	return db.wrap(err, "read from the database")
}

func (db *DB) readOnce(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return f(ctx, &Tx{db: db, run: tx})
}

// readOne is [DB.Read] for a function with one result.
func readOne[T any](ctx context.Context, db *DB, f func(ctx context.Context, tx *Tx) (T, error)) (T, error) {
	var v T
	err := db.Read(ctx, func(ctx context.Context, tx *Tx) (err error) {
		v, err = f(ctx, tx)
		return err
	})
	return v, err
}

// notFound turns the error of a query without a row into [postern.NotFound].
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return postern.Errorf(postern.NotFound, format, args...)
	}
	return err
}
