package store

import (
	"context"
	"database/sql"
	"embed"
	"io/fs"
	"path"
	"strconv"
	"strings"

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
	all, err := scripts()
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, db, nil, goose.WithAllowOutofOrder(true),
		goose.WithDisableGlobalRegistry(true), goose.WithGoMigrations(append(all, dense(dialect), blocks(dialect))...),
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

// scripts returns the migrations that are SQL. Each runs as one text: goose's own reader,
// which takes it apart into statements, uses a buffer of 4 MB for each line.
func scripts() (all []*goose.Migration, err error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		number, _, _ := strings.Cut(path.Base(file), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, err
		}
		text, err := migrations.ReadFile(file)
		if err != nil {
			return nil, err
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		all = append(all, goose.NewGoMigration(version, &goose.GoFunc{
			RunTx: func(ctx context.Context, tx *sql.Tx) error {
				_, err := tx.ExecContext(ctx, up)
				return err
			},
		}, nil))
	}
	return all, nil
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
