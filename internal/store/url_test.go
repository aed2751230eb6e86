package store_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

func TestDatabaseIsNamedUnmistakably(t *testing.T) {
	services := filepath.Join(t.TempDir(), "services")
	must(t, os.WriteFile(services, []byte("[postern]\nhost=db\n"), 0o600))
	t.Setenv("PGSERVICEFILE", services)
	for text, c := range map[string]struct {
		postgres bool
		refused  string // what the error names; "" if it is accepted
	}{
		"postgres://db/postern":           {postgres: true},
		"postgresql:///postern?host=/run": {postgres: true},
		"host=db dbname=postern":          {postgres: true},
		" dbname = postern user='a b'":    {postgres: true},
		"service=postern":                 {postgres: true},
		"postern.db":                      {},
		"/var/lib/postern/postern.db":     {},
		"./host=db":                       {},
		"/a=b/postern.db":                 {},
		"":                                {},
		"postgres://a:secret@[":           {postgres: true, refused: "cannot be parsed"},
		"host=db port=secret":             {postgres: true, refused: "cannot be parsed"},
		"host=db password='secret":        {postgres: true, refused: "cannot be parsed"},
		"host=db channel_binding=require": {postgres: true},
		"host=db options='-c geqo=off'":   {postgres: true},
		"host=db gssencmode=require":      {postgres: true, refused: "gssencmode"},
		"postgres://db/x?sslcrl=crl.pem":  {postgres: true, refused: "sslcrl"},
		"hots=db dbname=postern":          {refused: "hots"},
		"hots = db":                       {refused: "hots"},
		"mysql://db/postern":              {refused: "mysql:"},
		"file:postern.db?mode=ro":         {refused: "file:"},
		"sqlite:postern.db":               {refused: "sqlite:"},
		"cockroach+postgres://db/x":       {refused: "cockroach+postgres:"},
	} {
		t.Run(text, func(t *testing.T) {
			if got := store.IsPostgres(text); got != c.postgres && c.refused == "" {
				t.Errorf("PostgreSQL: %v", got)
			}
			err := store.Config{URL: text, Key: storetest.Key}.Validate()
			switch {
			case c.refused == "" && err != nil:
				t.Error(err)
			case c.refused != "" && (postern.CodeOf(err) != postern.Invalid || postern.HintOf(err) == "" ||
				!strings.Contains(err.Error(), c.refused) || strings.Contains(err.Error(), "secret")):
				t.Errorf("%v (%s)", err, postern.HintOf(err))
			}
		})
	}
}

// TestKeywordsOpenPostgreSQL opens a database by keywords and values, and makes no file
// of that name.
func TestKeywordsOpenPostgreSQL(t *testing.T) {
	server := posterntest.StartPostgreSQL(t)
	u, err := url.Parse(server.Database())
	must(t, err)
	t.Chdir(t.TempDir())
	named := fmt.Sprintf("host=%s user=postgres dbname=%s", u.Query().Get("host"), strings.TrimPrefix(u.Path, "/"))
	db := storetest.OpenConfig(t, store.Config{URL: named})
	must(t, db.Append(t.Context(), postern.Event{Kind: "test"}))
	if !db.Shared() {
		t.Error("it is no PostgreSQL database")
	}
	_, err = store.Open(t.Context(), store.Config{URL: named + " dbnaem=x", Key: storetest.Key})
	if postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), "dbnaem") {
		t.Errorf("a keyword that is unknown: %v", err)
	}
	if files, err := os.ReadDir("."); err != nil || len(files) != 0 {
		t.Errorf("there are files: %v, %v", files, err)
	}
}

// TestDatabaseThatDoesNotLockIsRefused opens databases in which the write lock does not
// keep other servers out.
func TestDatabaseThatDoesNotLockIsRefused(t *testing.T) {
	server := posterntest.StartPostgreSQL(t)
	// other takes the place of functions that CockroachDB and YugabyteDB answer otherwise.
	other := func(functions string) string {
		at := server.Database()
		server.Exec(at, "CREATE SCHEMA other; "+functions)
		u, err := url.Parse(at)
		must(t, err)
		name := strings.TrimPrefix(u.Path, "/")
		server.Exec(at, "ALTER DATABASE "+name+" SET search_path = other, pg_catalog, public")
		return at
	}
	version := func(text string) string {
		return other(`CREATE FUNCTION other.version() RETURNS text LANGUAGE sql AS $$ SELECT '` + text + `' $$`)
	}
	bouncer := func(mode string) string {
		u, err := url.Parse(server.Database())
		must(t, err)
		return server.PgBouncer(strings.TrimPrefix(u.Path, "/"), mode)
	}
	for name, c := range map[string]struct{ url, refused string }{
		"CockroachDB": {version("CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu, built 2026)"), "CockroachDB"},
		"YugabyteDB":  {version("PostgreSQL 11.2-YB-2.18.0.0-b0 on x86_64-pc-linux-gnu"), "YugabyteDB"},
		"no lock": {other(`CREATE FUNCTION other.pg_try_advisory_xact_lock(bigint) RETURNS boolean
			LANGUAGE sql AS $$ SELECT true $$`), "do not exclude"},
		"PgBouncer, a session a transaction": {bouncer("transaction"), "pooler"},
		"PgBouncer, a session a statement":   {bouncer("statement"), "pooler"},
		"PgBouncer, a session a connection":  {bouncer("session"), ""},
		"PostgreSQL":                         {server.Database(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := store.Open(t.Context(), store.Config{URL: c.url, Key: storetest.Key})
			if c.refused != "" {
				if postern.CodeOf(err) != postern.Invalid || !strings.Contains(err.Error(), c.refused) ||
					postern.HintOf(err) == "" {
					t.Fatalf("%v (%s)", err, postern.HintOf(err))
				}
				return
			}
			must(t, err)
			defer db.Close()
			must(t, db.Append(t.Context(), postern.Event{Kind: "test"}))
		})
	}
}
