package directory_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/directory"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/store/storetest"
	"github.com/postern-project/postern/timeline"
)

// company is a directory and a store that is kept like it, whose clock the test sets.
type company struct {
	*posterntest.Slapd
	t      *testing.T
	db     *store.DB
	config directory.Config
	ahead  time.Duration
}

func newCompany(t *testing.T) *company {
	c := &company{Slapd: posterntest.StartSlapd(t), t: t}
	c.db = storetest.OpenConfig(t, store.Config{
		URL: storetest.URL(t), Now: func() time.Time { return time.Now().Add(c.ahead) },
	})
	c.config = configOf(t, c.Slapd)
	c.config.Keep = time.Hour
	must(t, c.db.Directory().Use(t.Context(), &c.config))
	return c
}

// sync reads the directory, which must be possible.
func (c *company) sync() directory.Changes {
	c.t.Helper()
	changes, err := directory.Sync(c.t.Context(), c.config, c.db.Directory())
	must(c.t, err)
	return changes
}

// is fails unless a person has a status and groups; none means that there is none.
func (c *company) is(name string, status postern.PersonStatus, groups ...string) {
	c.t.Helper()
	p, err := c.db.People().Person(c.t.Context(), name)
	if status == "" {
		if postern.CodeOf(err) != postern.NotFound {
			c.t.Errorf("%s is here: %+v, %v", name, p, err)
		}
		return
	}
	must(c.t, err)
	if p.Status != status || !slices.Equal(p.Groups, groups) {
		c.t.Errorf("%s is %s in %q, not %s in %q", name, p.Status, p.Groups, status, groups)
	}
}

// entries returns the timeline's entries of a kind, each as the person and the reason.
func (c *company) entries(kind string) (list []string) {
	c.t.Helper()
	events, err := c.db.Timeline().Events(c.t.Context(), timeline.Filter{Kind: kind, Limit: 100})
	must(c.t, err)
	for _, e := range events {
		list = append(list, strings.TrimSpace(e.Person+" "+string(e.Outcome)+" "+e.Reason))
	}
	return list
}

// set changes one attribute of an entry.
func set(rdn, attribute, value string) string {
	return fmt.Sprintf("dn: %s,dc=example,dc=com\nchangetype: modify\nreplace: %[2]s\n%[2]s: %[3]s\n\n",
		rdn, attribute, value)
}

func unlock(rdn string) string {
	return "dn: " + rdn + ",dc=example,dc=com\nchangetype: modify\ndelete: " + locked + "\n\n"
}

func remove(rdn string) string { return "dn: " + rdn + ",dc=example,dc=com\nchangetype: delete\n\n" }

const locked = "pwdAccountLockedTime"

func TestPeopleFollowTheDirectory(t *testing.T) {
	c := newCompany(t)
	c.Change(user("Alice", "Alice A.", "mail: alice@example.com") +
		user("bob", "Bob", "") + user("carol", "Carol", "") +
		group("Domain Admins", "uid=Alice", "uid=bob"))
	if got := c.sync(); len(got.Added) != 3 || len(got.Skipped) != 0 {
		t.Errorf("%+v", got)
	}
	c.is("alice", postern.PersonActive, "domain admins")
	before := storetest.Rows(t, c.db)
	if got := c.sync(); !got.Empty() {
		t.Errorf("nothing has changed: %+v", got)
	}
	storetest.SameRows(t, c.db, before)

	c.Change(set("uid=bob", locked, "000001010000Z") + remove("uid=carol") +
		set("cn=Domain Admins", "member", "uid=bob,dc=example,dc=com") +
		set("uid=Alice", "mail", "a.able@example.com"))
	generation, err := c.db.Generation(t.Context())
	must(t, err)
	if got := c.sync(); len(got.Suspended) != 2 || len(got.Changed) != 1 {
		t.Errorf("%+v", got)
	}
	c.is("alice", postern.PersonActive)
	c.is("bob", postern.PersonSuspended, "domain admins")
	c.is("carol", postern.PersonSuspended)
	if next, err := c.db.Generation(t.Context()); err != nil || next == generation {
		t.Error("who may pass has changed, and no server takes notice", err)
	}
	if p, err := c.db.People().PersonByEmail(t.Context(), "a.able@example.com"); err != nil || p.Name != "alice" {
		t.Error(p, err)
	}
	want := []string{"bob ok disabled in the directory corp", "carol ok not in the directory corp any more"}
	if got := c.entries(postern.EventPersonSuspended); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}

	c.Change(unlock("uid=bob") + user("carol", "Carol", ""))
	got := c.sync()
	c.is("bob", postern.PersonActive, "domain admins")
	c.is("carol", postern.PersonSuspended) // another entry of that name
	if len(got.Skipped) != 1 || !strings.Contains(got.Skipped[0], "carol") {
		t.Errorf("%q", got.Skipped)
	}
}

// TestWhatIsDecidedHereStays tries what an administrator has decided against what the
// directory says.
func TestWhatIsDecidedHereStays(t *testing.T) {
	c := newCompany(t)
	ctx, people := t.Context(), c.db.People()
	must(t, people.AddPerson(ctx, postern.Person{Name: "alice", Email: "other@example.com", Groups: []string{"ops"}}))
	must(t, people.AddPerson(ctx, postern.Person{Name: "bob", Email: "bob@example.com", Groups: []string{"ops"}}))
	must(t, people.AddPerson(ctx, postern.Person{Name: "juergen", Email: "j@example.com"}))
	must(t, people.AddAccount(ctx, postern.Account{Name: "jürgen", Person: "juergen"}))
	c.Change(user("alice", "Alice", "mail: alice@example.com") + user("bob", "Bob", "mail: bob@example.com") +
		user("jürgen", "Jürgen", "mail: j@example.com") + user("ünal", "Ünal", "") +
		user("dan", "Dan", locked+": 000001010000Z") +
		user("erin", "Erin", "mail: bob@example.com") + group("ops", "uid=bob", "uid=alice") + group("web", "uid=bob"))
	got := c.sync()
	if len(got.Skipped) != 3 { // alice has another address, ünal no name, erin an address that is bob's
		t.Errorf("%q", got.Skipped)
	}
	c.is("alice", postern.PersonActive, "ops") // no entry takes her over by her name
	c.is("bob", postern.PersonActive, "ops", "web")
	c.is("juergen", postern.PersonActive)
	c.is("dan", "")
	c.is("erin", postern.PersonActive)

	// Groups of the directory are not changed here, and those that are made here stay.
	must(t, c.db.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		p, err := tx.Person(ctx, "bob")
		if err != nil {
			return err
		}
		p.Groups = append(p.Groups, "dba")
		return tx.ChangePerson(ctx, p)
	}))
	c.Change(remove("cn=web"))
	c.sync()
	c.is("bob", postern.PersonActive, "dba", "ops")

	// Whom an administrator has suspended, the directory does not resume.
	must(t, people.SetPersonStatus(ctx, "bob", postern.PersonSuspended))
	c.sync()
	c.Change(set("uid=bob", locked, "000001010000Z"))
	c.sync()
	c.Change(unlock("uid=bob"))
	c.sync()
	c.is("bob", postern.PersonSuspended, "dba", "ops")

	// Whom the directory has suspended, an administrator does not resume for long.
	c.Change(set("uid=erin", locked, "000001010000Z"))
	c.sync()
	must(t, people.SetPersonStatus(ctx, "erin", postern.PersonActive))
	c.sync()
	c.is("erin", postern.PersonSuspended)
	for name, want := range map[string]string{"erin": "corp", "bob": "", "alice": ""} {
		if got, err := people.SuspendedBy(ctx, name); err != nil || got != want {
			t.Errorf("%s is suspended by %q, not %q: %v", name, got, want, err)
		}
	}

	must(t, people.SetPersonStatus(ctx, "bob", postern.PersonRemoved))
	c.sync()
	if p, err := people.Person(ctx, "bob"); err != nil || p.Status != postern.PersonRemoved || len(p.Groups) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestUnavailableDirectory stops the directory: no person is suspended at once, all are
// after the time that its people are kept, and its return ends that.
func TestUnavailableDirectory(t *testing.T) {
	c := newCompany(t)
	must(t, c.db.People().AddPerson(t.Context(), postern.Person{Name: "local"}))
	c.Change(user("alice", "Alice", "") + user("bob", "Bob", ""))
	c.sync()
	must(t, c.db.People().SetPersonStatus(t.Context(), "bob", postern.PersonSuspended))
	c.Stop()
	for _, ahead := range []time.Duration{0, 59 * time.Minute, 61 * time.Minute, 2 * time.Hour} {
		c.ahead = ahead
		_, err := directory.Sync(t.Context(), c.config, c.db.Directory())
		if postern.CodeOf(err) != postern.Unavailable {
			t.Fatal(err)
		}
		want := postern.PersonActive
		if ahead > time.Hour {
			want = postern.PersonSuspended
		}
		c.is("alice", want)
		c.is("local", postern.PersonActive)
	}
	if d, err := c.db.Directory().State(t.Context()); err != nil || d.Failed == "" || d.Synced.IsZero() {
		t.Errorf("%+v, %v", d, err)
	}
	if got := c.entries(postern.EventDirectory); len(got) != 1 || !strings.HasPrefix(got[0], "failed") {
		t.Errorf("%q", got)
	}
	c.Start()
	c.sync()
	c.is("alice", postern.PersonActive)
	c.is("bob", postern.PersonSuspended)
	if got := c.entries(postern.EventDirectory); len(got) != 2 || got[1] != "ok" {
		t.Errorf("%q", got)
	}
}

// TestAnotherDirectoryTakesNothingOver configures another directory, and none.
func TestAnotherDirectoryTakesNothingOver(t *testing.T) {
	c := newCompany(t)
	c.Change(user("alice", "Alice", "mail: alice@example.com") + group("web", "uid=alice"))
	c.sync()
	must(t, c.db.Directory().Use(t.Context(), nil))
	c.is("alice", postern.PersonActive)
	_, err := c.db.Directory().Sync(t.Context(), "corp", &directory.Snapshot{})
	if postern.CodeOf(err) != postern.NotFound {
		t.Errorf("it is taken from nevertheless: %v", err)
	}
	c.is("alice", postern.PersonActive)
	must(t, c.db.Directory().Use(t.Context(), &c.config))
	c.sync()
	c.is("alice", postern.PersonActive, "web")
}

// TestSyncerFollows runs as a server does, and logs an outage once and no password.
func TestSyncerFollows(t *testing.T) {
	c := newCompany(t)
	c.Change(user("alice", "Alice", ""))
	var log lockedBuffer
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	c.config.Refresh = 50 * time.Millisecond
	go func() {
		defer close(done)
		directory.Syncer{
			Config: c.config, Store: c.db.Directory(), Log: slog.New(slog.NewTextHandler(&log, nil)),
		}.Run(ctx)
	}()
	until := func(name string, status postern.PersonStatus) {
		t.Helper()
		for {
			p, err := c.db.People().Person(ctx, name)
			if err == nil && p.Status == status {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	until("alice", postern.PersonActive)
	c.Change(set("uid=alice", locked, "000001010000Z"))
	until("alice", postern.PersonSuspended)
	c.Stop()
	for !strings.Contains(log.String(), "cannot be read") {
		time.Sleep(10 * time.Millisecond)
	}
	c.Start()
	for !strings.Contains(log.String(), "can be read again") {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	<-done
	secret, err := os.ReadFile(c.config.PasswordFile)
	must(t, err)
	text := strings.ReplaceAll(log.String(), c.Reader, "") // whose name has the same letters
	if strings.Contains(text, strings.TrimSpace(string(secret))) {
		t.Error(text)
	}
}
