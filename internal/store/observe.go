package store

import (
	"context"
	"errors"
	"time"

	"github.com/postern-project/postern"
)

// Batch is what became of writes that shared a transaction.
type Batch struct {
	Waited []time.Duration // of each write, from the call to the answer
	Events []postern.Event // that were appended to the timeline
	Err    error           // why none of the writes was done; see [IsOutage]
}

// Observe has f called after each batch of writes, in place of the function that was
// given before. f is called by one goroutine at a time, which writes nothing
// meanwhile, and must not write itself.
func (db *DB) Observe(f func(Batch)) { db.observer.Store(&f) }

// observe hands a batch that was answered to the observer.
func (db *DB) observe(batch []*request, events []postern.Event, err error) {
	f := db.observer.Load()
	if f == nil {
		return
	}
	b := Batch{Waited: make([]time.Duration, len(batch)), Err: err}
	if err == nil {
		b.Events = events
	}
	now := time.Now()
	for i, r := range batch {
		b.Waited[i] = now.Sub(r.began)
	}
	(*f)(b)
}

// outage marks an error as the database's, not the statement's or the caller's.
type outage struct{ error }

func (o outage) Unwrap() error { return o.error }

// IsOutage reports whether an error says that the database is unavailable, full,
// read-only or damaged, or did not answer in time.
func IsOutage(err error) bool {
	var o outage
	return errors.As(err, &o)
}

// TryWrite fails as a write does while the database cannot be written, or the timeline
// cannot be appended to. It changes nothing.
func (db *DB) TryWrite(ctx context.Context) error {
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, err := db.loadTree(ctx, tx); err != nil {
			return outage{err}
		}
		_, err := tx.Exec(ctx, `UPDATE counters SET value = value WHERE name = 'generation'`)
		return err
	})
}

// Bytes returns how much the database takes on disk: its file and journal, or what
// PostgreSQL says.
func (db *DB) Bytes(ctx context.Context) (int64, error) { return db.backend.bytes(ctx, db.read) }
