package store

import (
	"context"
	"database/sql"

	"github.com/pressly/goose/v3"
)

// blocks is the migration by which the timeline is searched by blocks of entries for
// what most blocks have in common, and by an index for addresses and objects.
func blocks(dialect goose.Dialect) *goose.Migration {
	key, option, b := "BIGINT", "", backend(&postgres{})
	if dialect == goose.DialectSQLite3 {
		key, option, b = "INTEGER", "WITHOUT ROWID", &sqlite{}
	}
	up := []string{
		`CREATE TABLE log_blocks (
			block    ` + key + ` PRIMARY KEY,
			earliest BIGINT NOT NULL,
			latest   BIGINT NOT NULL
		)`,
		`CREATE TABLE log_terms (
			term  TEXT NOT NULL,
			block BIGINT NOT NULL,
			PRIMARY KEY (term, block)
		) ` + option,
		`DROP INDEX IF EXISTS log_events_kind`,
		`DROP INDEX IF EXISTS log_events_outcome`,
		`CREATE INDEX log_events_address ON log_events (address` + b.bytewise() + `, idx)`,
		`CREATE INDEX log_events_object ON log_events (object` + b.bytewise() + `, idx)`,
	}
	return goose.NewGoMigration(8, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		if err := execAll(ctx, tx, up); err != nil {
			return err
		}
		return fillBlocks(ctx, &Tx{run: tx, write: true, send: func(ctx context.Context, list ...statement) error {
			return sendEach(ctx, tx, list)
		}})
	}}, nil)
}

// fillBlocks records the blocks of the entries that there are.
func fillBlocks(ctx context.Context, tx *Tx) error {
	var size int64
	if err := tx.QueryRow(ctx, `SELECT COALESCE(MAX(idx) + 1, 0) FROM log_events`).Scan(&size); err != nil {
		return err
	}
	for n := range size / blockWidth {
		b := new(block)
		if err := tx.readBlock(ctx, b, span{n * blockWidth, (n + 1) * blockWidth}); err != nil {
			return err
		}
		tx.putBlock(n, b)
	}
	return tx.flush(ctx)
}

func execAll(ctx context.Context, tx *sql.Tx, statements []string) error {
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
