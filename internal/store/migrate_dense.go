package store

import (
	"context"
	"database/sql"

	"github.com/pressly/goose/v3"
)

// dense is the migration by which SQLite keeps the timeline without doubles: a
// BIGINT key is an index beside the table there, and a table that is nothing but
// its key need not exist. PostgreSQL has nothing to do.
func dense(dialect goose.Dialect) *goose.Migration {
	return goose.NewGoMigration(3, step(dialect, denseUp), step(dialect, denseDown))
}

func step(dialect goose.Dialect, statements []string) *goose.GoFunc {
	return &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
		if dialect != goose.DialectSQLite3 {
			return nil
		}
		return execAll(ctx, tx, statements)
	}}
}

var (
	denseUp   = rebuild("INTEGER", "WITHOUT ROWID")
	denseDown = rebuild("BIGINT", "")
)

// rebuild returns the statements that move the timeline's lines to new tables,
// of which one has a key of that type and the other that option.
func rebuild(key, option string) []string {
	return []string{
		`DROP INDEX log_events_person`,
		`ALTER TABLE log_events RENAME TO log_events_old`,
		`ALTER TABLE log_links RENAME TO log_links_old`,
		`CREATE TABLE log_events (
			idx     ` + key + ` PRIMARY KEY,
			time    BIGINT NOT NULL,
			kind    TEXT NOT NULL,
			outcome TEXT NOT NULL,
			person  TEXT NOT NULL,
			address TEXT NOT NULL,
			object  TEXT NOT NULL,
			line    TEXT NOT NULL
		)`,
		`CREATE TABLE log_links (
			kind TEXT NOT NULL,
			id   TEXT NOT NULL,
			idx  BIGINT NOT NULL,
			PRIMARY KEY (kind, id, idx)
		) ` + option,
		`INSERT INTO log_events SELECT * FROM log_events_old ORDER BY idx`,
		`INSERT INTO log_links SELECT * FROM log_links_old ORDER BY kind, id, idx`,
		`DROP TABLE log_events_old`,
		`DROP TABLE log_links_old`,
		`CREATE INDEX log_events_person ON log_events (person, idx)`,
	}
}
