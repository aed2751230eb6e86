// Package storetest opens fresh stores for tests.
package storetest

import (
	"path/filepath"
	"testing"

	"github.com/postern-project/postern/store"
)

// Key is the key-encrypting key of every store opened here.
var Key = [32]byte{'t', 'e', 's', 't'}

// Open returns a new, empty store in a SQLite file of the test's own. It is
// closed when the test ends.
func Open(t testing.TB) *store.DB {
	t.Helper()
	return OpenConfig(t, store.Config{URL: filepath.Join(t.TempDir(), "postern.db")})
}

// OpenConfig opens a store as configured, with [Key] unless it has a key.
func OpenConfig(t testing.TB, c store.Config) *store.DB {
	t.Helper()
	if c.Key == [32]byte{} {
		c.Key = Key
	}
	db, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
