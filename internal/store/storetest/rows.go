package storetest

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/postern-project/postern/internal/store"
)

// Rows returns how many rows each table has.
func Rows(t testing.TB, db *store.DB) map[string]int {
	t.Helper()
	rows := map[string]int{}
	err := db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		names, err := tables(ctx, tx, db.Shared())
		if err != nil {
			return err
		}
		for _, name := range names {
			var n int
			if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM `+name).Scan(&n); err != nil {
				return err
			}
			rows[name] = n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func tables(ctx context.Context, tx *store.Tx, postgres bool) ([]string, error) {
	query := `SELECT name FROM sqlite_master WHERE type = 'table'`
	if postgres {
		query = `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`
	}
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// SameRows fails unless each table has as many rows as before.
func SameRows(t testing.TB, db *store.DB, before map[string]int) {
	t.Helper()
	after := Rows(t, db)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if after[name] != before[name] {
			t.Errorf("table %s has %d rows, and had %d", name, after[name], before[name])
		}
	}
}
