package store_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
)

// opener opens a new server over the test's one database, with storetest's key
// unless a change says otherwise.
type opener func(t *testing.T, changes ...func(*store.Config)) *store.DB

// conformance are the tests that both databases must pass.
var conformance = []struct {
	name string
	run  func(t *testing.T, open opener)
}{
	{"a write is seen by the next read", writeThenRead},
	{"an error undoes its own write alone", errorUndoesItself},
	{"a panic reaches the caller and undoes its own write", panicReachesCaller},
	{"concurrent writes on two servers are all kept", countTogether},
	{"people", people},
	{"people by page", peopleByPage},
	{"whose an account is", accountPerson},
	{"credentials", credentials},
	{"the generation grows with who may pass", generation},
	{"sealed values", sealed},
	{"two inits make one authority", twoInits},
	{"certificates", certificates},
	{"SSH certificates", sshCertificates},
	{"a root and an SSH CA are followed and retired", retired},
	{"what has expired long ago is removed", removesExpired},
	{"tokens for signing", signTokens},
	{"passkeys, challenges and counters on two servers", passkeys},
	{"hosts from the invitation to the end", hosts},
	{"rescue codes of hosts", hostRescue},
	{"what is said of a host", hostFacts},
	{"server certificates of a host that is removed", hostServes},
	{"tokens of hosts that have expired", hostTokensEnd},
	{"one token admits one of two hosts", oneTokenTwoHosts},
	{"values are sealed again under a new key while served", rewrap},
	{"another key does not open the database", anotherKey},
	{"servers that start at once", startAtOnce},
	{"a newer schema is refused", newerSchema},
	{"a caller does not wait past its deadline", deadline},
	{"a Write inside a Write is refused", nested},
	{"a read cannot write", readOnly},
	{"events of an agent count once, on two servers", relayedOnce},
	{"the timeline answers what is asked", asked},
	{"the timeline verifies and proves every line", provesEveryLine},
	{"the timeline's key is followed by another", logKeyFollowed},
	{"tampering shows", tamperingShows},
	{"a tampered timeline is not signed again", notSignedAgain},
	{"a witness vouches for what it cosigned alone", vouched},
	{"a retired CA's certificates are not accepted", notOfARetiredCA},
	{"two roots are not retired at once", retiredAtOnce},
	{"a verification goes on where an earlier one ended", verifiedSince},
	{"an earlier checkpoint finds a log written anew with its own key", writtenAnew},
}

func TestSQLite(t *testing.T) {
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "postern.db")
			c.run(t, openerOf(store.Config{URL: path}))
		})
	}
}

func TestPostgreSQL(t *testing.T) {
	server := posterntest.StartPostgreSQL(t)
	migrated := server.Database()
	must(t, store.Migrate(t.Context(), migrated))
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, openerOf(store.Config{URL: server.Copy(migrated)}))
		})
	}
}

func openerOf(c store.Config) opener {
	return func(t *testing.T, changes ...func(*store.Config)) *store.DB {
		t.Helper()
		changed := c
		for _, change := range changes {
			change(&changed)
		}
		return storetest.OpenConfig(t, changed)
	}
}

// counter makes a table for tests that count.
func counter(t *testing.T, db *store.DB) {
	t.Helper()
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO counters (name, value) VALUES ('test', 0)`)
		return err
	}))
}

func count(t *testing.T, db *store.DB) (n int64) {
	t.Helper()
	must(t, db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT value FROM counters WHERE name = $1`, "test").Scan(&n)
	}))
	return n
}

// add reads and writes apart, so that a lost update would show.
func add(ctx context.Context, tx *store.Tx, by int64) error {
	var n int64
	if err := tx.QueryRow(ctx, `SELECT value FROM counters WHERE name = 'test'`).Scan(&n); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE counters SET value = $1 WHERE name = 'test'`, n+by)
	return err
}

func writeThenRead(t *testing.T, open opener) {
	a, b := open(t), open(t)
	counter(t, a)
	must(t, a.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return add(ctx, tx, 7) }))
	if n := count(t, b); n != 7 {
		t.Errorf("the other server sees %d, not 7", n)
	}
}

func errorUndoesItself(t *testing.T, open opener) {
	db := open(t)
	counter(t, db)
	before := storeSize(t, db)
	no := errors.New("no")
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			err := db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				if err := add(ctx, tx, 1); err != nil {
					return err
				}
				if err := tx.Append(ctx, postern.Event{Kind: "test"}); err != nil {
					return err
				}
				if i%2 == 1 {
					return no
				}
				return nil
			})
			if i%2 == 1 != errors.Is(err, no) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := count(t, db); n != 50 {
		t.Errorf("counted %d, not 50", n)
	}
	if n := storeSize(t, db) - before; n != 50 {
		t.Errorf("%d lines, not 50", n)
	}
}

// storeSize returns the number of lines in the timeline.
func storeSize(t *testing.T, db *store.DB) (n int64) {
	t.Helper()
	must(t, db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.QueryRow(ctx, `SELECT COUNT(*) FROM log_events`).Scan(&n)
	}))
	return n
}

func panicReachesCaller(t *testing.T, open opener) {
	db := open(t)
	counter(t, db)
	func() {
		defer func() {
			if r := recover(); r != "oops" {
				t.Errorf("recovered %v", r)
			}
		}()
		db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			must(t, add(ctx, tx, 1))
			panic("oops")
		})
	}()
	must(t, db.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return add(ctx, tx, 1) }))
	if n := count(t, db); n != 1 {
		t.Errorf("counted %d, not 1", n)
	}
}

func countTogether(t *testing.T, open opener) {
	const writers, each = 16, 20
	servers := []*store.DB{open(t), open(t)}
	counter(t, servers[0])
	lines := storeSize(t, servers[0])
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				err := servers[i%2].Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					if err := tx.Append(ctx, postern.Event{Kind: "test", Links: []postern.Link{{
						Kind: "k",
						ID:   "v",
					}}}); err != nil {
						return err
					}
					return add(ctx, tx, 1)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := count(t, servers[0]); n != writers*each {
		t.Errorf("counted %d, not %d", n, writers*each)
	}
	if n := storeSize(t, servers[1]) - lines; n != writers*each {
		t.Errorf("%d lines, not %d", n, writers*each)
	}
}

func people(t *testing.T, open opener) {
	db, ctx := open(t), t.Context()
	must(t, db.People().AddPerson(ctx, postern.Person{
		Name: "alice", Email: " Alice@Example.com", FullName: "Alice A.",
		Groups: []string{"ops", "audit", "ops"},
	}))
	must(t, db.People().AddPerson(ctx, postern.Person{Name: "bob"}))
	must(t, db.People().AddPerson(ctx, postern.Person{Name: "carol"}))
	for _, c := range []struct {
		p    postern.Person
		code postern.Code
	}{
		{postern.Person{Name: "alice"}, postern.Conflict},
		{postern.Person{Name: "Dan"}, postern.Invalid},
		{postern.Person{Name: "dan", Email: "ALICE@example.com"}, postern.Conflict},
		{postern.Person{Name: "dan", Email: "x"}, postern.Invalid},
		{postern.Person{Name: "dan", Groups: []string{"a b"}}, postern.Invalid},
	} {
		if err := db.People().AddPerson(ctx, c.p); postern.CodeOf(err) != c.code || err == nil {
			t.Errorf("add %+v: %v", c.p, err)
		}
	}
	alice, err := db.People().PersonByEmail(ctx, "aLice@example.COM")
	must(t, err)
	if alice.Name != "alice" || len(alice.Groups) != 2 || alice.Groups[0] != "audit" || !alice.Active() ||
		alice.Created.IsZero() {
		t.Errorf("alice is %+v", alice)
	}
	must(t, db.People().SetPersonStatus(ctx, "alice", postern.PersonSuspended))
	if alice, _ = db.People().Person(ctx, "alice"); alice.Active() {
		t.Error("alice is active though suspended")
	}
	must(t, db.People().PutCredential(ctx, postern.Credential{Kind: postern.YubiKey, ID: "vvcc", Person: "alice"}))
	must(t, db.People().SetPersonStatus(ctx, "alice", postern.PersonRemoved))
	if c, err := db.People().Credential(ctx, postern.YubiKey, "vvcc"); err != nil ||
		c.Status != postern.CredentialRevoked {
		t.Errorf("a removed person's key is %v, %v", c.Status, err)
	}
	if err := db.People().SetPersonStatus(ctx, "alice",
		postern.PersonActive); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("resume a removed person: %v", err)
	}
	if err := db.People().AddPerson(ctx, postern.Person{Name: "alice"}); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("give a removed person's name again: %v", err)
	}
	must(t, db.People().AddPerson(ctx, postern.Person{Name: "dan", Email: "alice@example.com"}))
	all, err := db.People().All(ctx)
	must(t, err)
	if len(all) != 3 || all[0].Name != "bob" || all[2].Name != "dan" {
		t.Errorf("people are %+v", all)
	}
	if _, err := db.People().Person(ctx, "nosuch"); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("an unknown person: %v", err)
	}
}

func credentials(t *testing.T, open opener) {
	db, ctx := open(t), t.Context()
	must(t, db.People().AddPerson(ctx, postern.Person{Name: "alice"}))
	must(t, db.People().AddPerson(ctx, postern.Person{Name: "bob"}))
	key := postern.Credential{Kind: postern.YubiKey, ID: "vvccccbdefgh", Person: "alice", Label: "blue"}
	must(t, db.People().PutCredential(ctx, key))
	other := key
	other.Person = "bob"
	if err := db.People().PutCredential(ctx, other); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("give alice's key to bob: %v", err)
	}
	if err := db.People().PutCredential(ctx, postern.Credential{
		Kind: postern.TOTP, ID: "x",
		Person: "nosuch",
	}); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("a credential of an unknown person: %v", err)
	}
	used := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	must(t, db.People().TouchCredential(ctx, key.Kind, key.ID, used))
	must(t, db.People().TouchCredential(ctx, key.Kind, key.ID, used.Add(-time.Hour)))
	must(t, db.People().SetCredentialStatus(ctx, key.Kind, key.ID, postern.CredentialDisabled))
	credentials, err := db.People().CredentialsOf(ctx, "alice")
	must(t, err)
	if len(credentials) != 1 || credentials[0].Status != postern.CredentialDisabled ||
		!credentials[0].LastUsed.Equal(used) || credentials[0].Label != "blue" {
		t.Errorf("alice has %+v", credentials)
	}
	must(t, db.People().SetCredentialStatus(ctx, key.Kind, key.ID, postern.CredentialRevoked))
	if err := db.People().SetCredentialStatus(ctx, key.Kind, key.ID,
		postern.CredentialActive); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("bring a revoked key back: %v", err)
	}
	if err := db.People().PutCredential(ctx, key); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("put a revoked key again: %v", err)
	}
	if err := db.People().SetCredentialStatus(ctx, postern.HOTP, "none",
		postern.CredentialActive); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("enable what is not there: %v", err)
	}
}

func generation(t *testing.T, open opener) {
	a, b := open(t), open(t)
	ctx := t.Context()
	last, err := b.Generation(ctx)
	must(t, err)
	for _, change := range []func() error{
		func() error { return a.People().AddPerson(ctx, postern.Person{Name: "alice"}) },
		func() error {
			return a.People().PutCredential(ctx, postern.Credential{Kind: postern.TOTP, ID: "x", Person: "alice"})
		},
		func() error { return a.People().SetCredentialStatus(ctx, postern.TOTP, "x", postern.CredentialRevoked) },
		func() error { return a.People().SetPersonStatus(ctx, "alice", postern.PersonSuspended) },
	} {
		must(t, change())
		now, err := b.Generation(ctx)
		must(t, err)
		if now <= last {
			t.Errorf("generation %d after %d", now, last)
		}
		last = now
	}
}

func sealed(t *testing.T, open opener) {
	a, b := open(t), open(t)
	value, err := a.Seal("test", "1", []byte("secret"))
	must(t, err)
	if plain, err := b.Unseal("test", "1", value); err != nil || string(plain) != "secret" {
		t.Errorf("unsealed %q, %v", plain, err)
	}
	for i := range value {
		bad := append([]byte(nil), value...)
		bad[i] ^= 1
		if _, err := b.Unseal("test", "1", bad); err == nil {
			t.Errorf("byte %d changed, and it still unseals", i)
		}
	}
	for _, place := range [][2]string{{"test", "2"}, {"tes", "t1"}, {"other", "1"}} {
		if _, err := b.Unseal(place[0], place[1], value); err == nil {
			t.Errorf("moved to %v, and it still unseals", place)
		}
	}
	for n := range value {
		if _, err := b.Unseal("test", "1", value[:n]); err == nil {
			t.Errorf("cut to %d bytes, and it still unseals", n)
		}
	}
}

func rewrap(t *testing.T, open opener) {
	old := open(t)
	must(t, old.People().AddPerson(t.Context(), postern.Person{Name: "alice"}))
	key := [32]byte{'n', 'e', 'w'}
	renewed := func(c *store.Config) { c.Key, c.OldKeys = key, [][32]byte{storetest.Key} }
	both := open(t, renewed)
	must(t, both.Append(t.Context(), postern.Event{Kind: "test"})) // under the old key still
	n, err := both.Rewrap(t.Context())
	must(t, err)
	if n == 0 {
		t.Error("nothing was sealed again")
	}
	if n, err := both.Rewrap(t.Context()); n != 0 || err != nil {
		t.Errorf("a second time: %d, %v", n, err)
	}
	must(t, old.Append(t.Context(), postern.Event{Kind: "test"})) // holds what it opened
	alone := open(t, func(c *store.Config) { c.Key = key })
	must(t, alone.Append(t.Context(), postern.Event{Kind: "test"}))
	if r := verify(t, alone); r.Size != 4 || len(r.Problems) > 0 {
		t.Errorf("%d lines, problems %v", r.Size, r.Problems)
	}
}

func anotherKey(t *testing.T, open opener) {
	open(t)
	var config store.Config
	open(t, func(c *store.Config) { config = *c })
	config.Key = [32]byte{'w', 'r', 'o', 'n', 'g'}
	if db, err := store.Open(t.Context(), config); err == nil {
		db.Close()
		t.Error("another key opens the database")
	} else if postern.HintOf(err) == "" {
		t.Errorf("no hint in %v", err)
	}
	config.Key = [32]byte{}
	if _, err := store.Open(t.Context(), config); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("a zero key: %v", err)
	}
}

func startAtOnce(t *testing.T, open opener) {
	var wg sync.WaitGroup
	servers := make([]*store.DB, 6)
	for i := range servers {
		wg.Go(func() { servers[i] = open(t) })
	}
	wg.Wait()
	for _, db := range servers {
		if db == nil {
			t.Fatal("a server did not start")
		}
		must(t, db.Append(t.Context(), postern.Event{Kind: "test"}))
	}
	r := verify(t, servers[0])
	if r.Size != int64(1+len(servers)) || len(r.Problems) > 0 {
		t.Errorf("%d lines, problems %v", r.Size, r.Problems)
	}
}

func newerSchema(t *testing.T, open opener) {
	var config store.Config
	db := open(t, func(c *store.Config) { config = *c })
	config.Key = storetest.Key
	tamper(t, db, `INSERT INTO goose_db_version (version_id, is_applied) SELECT 9999, is_applied FROM goose_db_version
		WHERE version_id = 1`)
	_, err := store.Open(t.Context(), config)
	if postern.CodeOf(err) != postern.Conflict || postern.HintOf(err) == "" {
		t.Errorf("a newer schema: %v", err)
	}
}

func deadline(t *testing.T, open opener) {
	a, b := open(t), open(t)
	counter(t, a)
	inside, leave := make(chan bool), make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := a.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			close(inside)
			<-leave
			return add(ctx, tx, 1)
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-inside
	for _, db := range []*store.DB{a, b} { // one waits in the queue, the other for the database's lock
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		ran := false
		err := db.Write(ctx, func(ctx context.Context, tx *store.Tx) error { ran = true; return add(ctx, tx, 100) })
		if postern.CodeOf(err) != postern.Unavailable || !errors.Is(err, context.DeadlineExceeded) || ran {
			t.Errorf("a write past its deadline: %v, ran %v", err, ran)
		}
		cancel()
	}
	if n := count(t, b); n != 0 { // readers do not wait
		t.Errorf("counted %d, not 0", n)
	}
	close(leave)
	wg.Wait()
	must(t, b.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return add(ctx, tx, 1) }))
	if n := count(t, a); n != 2 {
		t.Errorf("counted %d, not 2", n)
	}
}

func nested(t *testing.T, open opener) {
	db := open(t)
	err := db.Write(t.Context(), func(ctx context.Context, _ *store.Tx) error {
		return db.Append(ctx, postern.Event{Kind: "test"})
	})
	if err == nil {
		t.Error("a Write ran inside a Write")
	}
}

func readOnly(t *testing.T, open opener) {
	db := open(t)
	counter(t, db)
	err := db.Read(t.Context(), func(ctx context.Context, tx *store.Tx) error { return add(ctx, tx, 1) })
	if err == nil || count(t, db) != 0 {
		t.Errorf("a read wrote: %v", err)
	}
	err = db.Read(t.Context(),
		func(ctx context.Context, tx *store.Tx) error { return tx.Append(ctx, postern.Event{Kind: "test"}) })
	if err == nil {
		t.Error("a read appended to the timeline")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
