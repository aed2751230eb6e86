package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/backup"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/state"
)

// TestPostgreSQL backs up what the state directory alone holds.
func TestPostgreSQL(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "state")}
	must(t, state.UseDatabase(r.dir, pg.Database()))
	st, err := state.Create(t.Context(), r.dir)
	must(t, err)
	r.st = st
	defer func() { r.st.Close() }()
	must(t, st.Store.People().AddPerson(t.Context(), postern.Person{Name: "alice"}))
	r.addTokens(1)
	made := r.backup(backup.Options{To: t.TempDir()})
	if made.Whole() || !strings.Contains(made.Note(), "dump that") {
		t.Errorf("%+v: %s", made.Manifest, made.Note())
	}
	r.use(r.tokens[0])
	r.leave()
	restored := r.restore(made.Path)
	if restored.Whole() || restored.Holds.Keys != 1 {
		t.Errorf("restored %+v", restored)
	}
	// The database was not restored: it knows what was used.
	r.replay()
	r.use(r.tokens[0])
}

// TestPostgreSQLPutBack replaces the database below two servers by an older one. The one
// that has seen more notices, at once, and tells the other.
func TestPostgreSQLPutBack(t *testing.T) {
	pg := posterntest.StartPostgreSQL(t)
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "a")}
	url := pg.Database()
	name := url[strings.LastIndex(url, "/")+1:]
	name, _, _ = strings.Cut(name, "?")
	must(t, state.UseDatabase(r.dir, url))
	st, err := state.Create(t.Context(), r.dir)
	must(t, err)
	r.st = st
	defer func() { r.st.Close() }()
	must(t, st.Store.People().AddPerson(t.Context(), postern.Person{Name: "alice"}))
	r.addTokens(1)
	second := filepath.Join(t.TempDir(), "b")
	must(t, os.CopyFS(second, os.DirFS(r.dir)))
	for _, secret := range []string{"kek", "database"} {
		must(t, os.Chmod(filepath.Join(second, secret), 0o600))
	}
	b, err := state.Open(t.Context(), second)
	must(t, err)
	must(t, b.Close())

	must(t, r.st.Close())
	admin := pg.URL("postgres")
	pg.Exec(admin, "CREATE DATABASE before TEMPLATE "+name)
	r.reopen()
	r.use(r.tokens[0])
	pg.Exec(admin, "DROP DATABASE "+name+" WITH (FORCE)")
	pg.Exec(admin, "CREATE DATABASE "+name+" TEMPLATE before")

	if ok, err := r.accept(t.Context(), r.used[0]); ok || postern.CodeOf(err) != postern.Unavailable {
		t.Fatalf("the server that runs: %t, %v", ok, err)
	}
	if err := r.st.CheckRestored(t.Context()); !errors.Is(err, state.ErrRestored) {
		t.Fatalf("noticed: %v", err)
	}
	b, err = state.Open(t.Context(), second)
	must(t, err)
	defer b.Close()
	first := r.st
	r.st = b
	if ok, err := r.accept(t.Context(), r.used[0]); ok || postern.CodeOf(err) != postern.Unavailable {
		t.Fatalf("the other server: %t, %v", ok, err)
	}
	_, err = b.AcceptRestored(t.Context(), false, event)
	must(t, err)
	r.enable()
	r.replay()
	r.st = first
	must(t, first.CheckRestored(t.Context()))
	r.replay()
	r.use(r.tokens[0])
}
