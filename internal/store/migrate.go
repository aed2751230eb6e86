package store

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"

	"github.com/postern-project/postern"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrate brings the schema up to date, under a lock if there is anything to
// do. Migrations are numbered by package, so they may arrive out of order; a
// migration that this program does not know means that a newer one has been
// here.
func migrate(ctx context.Context, dialect goose.Dialect, db *sql.DB, lock func() (func(), error)) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, db, dir, goose.WithAllowOutofOrder(true),
		goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(dense(dialect)),
		goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	known := map[int64]bool{}
	for _, s := range p.ListSources() {
		known[s.Version] = true
	}
	if done, err := current(ctx, db, known); err != nil || done {
		return err
	}
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	if done, err := current(ctx, db, known); err != nil || done {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// current reports whether exactly the known migrations have been applied.
func current(ctx context.Context, db *sql.DB, known map[int64]bool) (bool, error) {
	rows, err := db.QueryContext(ctx, `SELECT version_id FROM goose_db_version WHERE version_id > 0`)
	if err != nil {
		return false, nil // no table yet; if it is something worse, migrating says so
	}
	defer rows.Close()
	applied := 0
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return false, err
		}
		if !known[v] {
			return false, postern.Errorf(postern.Conflict,
				"the database has schema %04d, which this version of postern does not know", v).
				WithHint("a newer postern has used this database: run that version or a newer one")
		}
		applied++
	}
	return applied == len(known), rows.Err()
}
