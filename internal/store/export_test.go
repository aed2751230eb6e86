package store

import (
	"context"

	"github.com/postern-project/postern"
)

// BeginLogAgain appends the first entry of a log that is empty, as an attacker with
// the log's key can.
func (db *DB) BeginLogAgain(ctx context.Context) error {
	return db.Write(ctx, func(ctx context.Context, tx *Tx) error {
		tx.signer = db.signer
		return tx.Append(ctx, postern.Event{Kind: postern.EventLogCreated})
	})
}

// DenseDown are the statements that undo the migration to dense tables.
var DenseDown = denseDown

// EventQuery is the query for the events of a kind that may match.
var EventQuery = eventQuery
