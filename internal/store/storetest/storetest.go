// Package storetest opens fresh stores for tests.
package storetest

import (
	"context"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/postern-project/postern/internal/store"
)

// Key is the key-encrypting key of every store opened here.
var Key = [32]byte{'t', 'e', 's', 't'}

// DatabaseEnv names a PostgreSQL server's URL on which [Open] makes a database
// for each test, instead of a SQLite file: so every package's tests run on both.
const DatabaseEnv = "POSTERN_TEST_DATABASE"

// Open returns a new, empty store in a SQLite file of the test's own. It is
// closed when the test ends.
func Open(t testing.TB) *store.DB {
	t.Helper()
	url := URL(t)
	if !store.IsPostgres(url) {
		b, err := migrated()
		if err == nil {
			err = os.WriteFile(url, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return OpenConfig(t, store.Config{URL: url})
}

// migrated is a SQLite file with the schema and nothing else, made once.
var migrated = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "postern-store-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "postern.db")
	if err := store.Migrate(context.Background(), file); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
})

// URL returns where a new, empty store of the test's own will be.
func URL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(DatabaseEnv)
	if server == "" {
		return filepath.Join(t.TempDir(), "postern.db")
	}
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	name := "test_" + strings.ToLower(rand.Text())
	admin(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { admin(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

func admin(t testing.TB, server, sql string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
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
