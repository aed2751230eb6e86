package server_test

import (
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
)

// TestAccountsTakeTheCodesOfTheirPeople checks codes as pam_postern does, for accounts as
// directories name them.
func TestAccountsTakeTheCodesOfTheirPeople(t *testing.T) {
	db := openStore(t)
	for _, name := range []string{"alice", "bob"} {
		check(t, db.People().AddPerson(t.Context(), postern.Person{Name: name}))
	}
	for _, a := range []postern.Account{
		{Name: "*@corp.example.com", AnyCase: true},
		{Name: "www", Host: "web1", Person: "alice"},
		{Name: "two*", Person: "alice"},
		{Name: "*wo", Person: "bob"},
	} {
		check(t, db.People().AddAccount(t.Context(), a))
	}
	if err := db.People().AddAccount(t.Context(), postern.Account{
		Name:   "x",
		Person: "nosuch",
	}); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("an account of a person who does not exist: %v", err)
	}
	if err := db.People().AddAccount(t.Context(), postern.Account{
		Name: "www", Host: "WEB1",
		Person: "bob",
	}); postern.CodeOf(err) != postern.Conflict {
		t.Errorf("an account twice: %v", err)
	}
	keys := db.OTP()
	app := otp.NewOATH(postern.TOTP, "alice", "")
	check(t, keys.AddOATH(t.Context(), postern.Actor{}, app))
	now := time.Unix(1_800_000_000, 0)
	checker := otp.NewChecker(otp.CheckerConfig{Now: func() time.Time {
		return now
	}}, keys, keys, db.People(), nil, db)
	t.Cleanup(func() { checker.Close() })
	c := server.SSHChecker{OTP: checker, DB: db, Host: "web1"}
	for _, step := range []struct {
		user  string
		right bool
	}{
		{"alice", true},
		{"Alice@corp.example.com", true},
		{"www", true},
		{"bob@corp.example.com", false},
		{"alice@other.example.com", false},
		{"two", false},
		{"bob", false},
	} {
		now = now.Add(time.Minute)
		proof, err := c.CheckCode(t.Context(), sshd.Attempt{User: step.user, Code: app.Code(now), Service: "sshd"})
		if step.right != (err == nil) || err == nil && proof.Person != "alice" {
			t.Errorf("%s: %+v, %v", step.user, proof, err)
		}
	}
	c.Host = "web2"
	if person, err := c.CheckAccount(t.Context(), "www"); err == nil {
		t.Errorf("www is %s's on another host", person)
	}
	check(t, db.People().SetPersonStatus(t.Context(), "alice", postern.PersonSuspended))
	if _, err := c.CheckAccount(t.Context(), "ALICE@corp.example.com"); postern.CodeOf(err) != postern.Denied {
		t.Errorf("the account of a suspended person: %v", err)
	}
	check(t, db.People().RemoveAccount(t.Context(), "www", "web1"))
	if err := db.People().RemoveAccount(t.Context(), "www", "web1"); postern.CodeOf(err) != postern.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: t.TempDir() + "/postern.db", Key: [32]byte{1}})
	check(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}
