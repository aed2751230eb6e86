package store

import (
	"context"
	"math"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
)

// BeginLogAgain appends the first entry of a log that is empty, as an attacker with
// the log's key can.
func (db *DB) BeginLogAgain(ctx context.Context) error {
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		tx.newKeys = true
		return tx.Append(ctx, postern.Event{Kind: postern.EventLogCreated})
	})
}

// DenseDown are the statements that undo the migration to dense tables.
var DenseDown = denseDown

// EventQuery returns the query for the events of a span of indices that may match, and
// how many entries the spans have that it is asked for, without the last block.
func (s Timeline) EventQuery(ctx context.Context, f timeline.Filter) (query string, args []any, entries int64) {
	err := s.Read(ctx, func(ctx context.Context, tx *Tx) error {
		q, err := tx.findQuery(ctx, f)
		if err != nil {
			return err
		}
		entries = 0
		return tx.spans(ctx, f, q.indexed, func(s span) (bool, error) {
			query, args = q.in(s, f.Last)
			if s.to != math.MaxInt64 || s.from == 0 {
				entries += s.to - s.from
			}
			return true, nil
		})
	})
	if err != nil {
		panic(err)
	}
	return query, args, entries
}
