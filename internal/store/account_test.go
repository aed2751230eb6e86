package store_test

import (
	"testing"

	"github.com/postern-project/postern"
)

// accountPerson holds what is found among the accounts that may speak of a name
// against what is found among all.
func accountPerson(t *testing.T, open opener) {
	db, ctx := open(t).People(), t.Context()
	for _, name := range []string{"alice", "bob"} {
		must(t, db.AddPerson(ctx, postern.Person{Name: name}))
	}
	for _, a := range []postern.Account{
		{Name: "root", Person: "alice"},
		{Name: "root", Person: "bob", Host: "db1"},
		{Name: "Root", Person: "bob"},
		{Name: "ADMIN", Person: "bob", AnyCase: true},
		{Name: "*@corp.example.com"},
		{Name: "CORP\\*", AnyCase: true},
		{Name: "svc-*", Person: "alice"},
		{Name: "a_b", Person: "bob"},
		{Name: "a%b", Person: "alice"},
		{Name: "jürgen", Person: "alice"},
	} {
		must(t, db.AddAccount(ctx, a))
	}
	all, err := db.Accounts(ctx)
	must(t, err)
	for _, name := range []string{
		"root", "Root", "ROOT", "admin", "Admin", "bob@corp.example.com", `corp\alice`, `CORP\bob`, "svc-x", "svc-",
		"a_b", "axb",
		"a%b", "axxb", "jürgen", "JÜRGEN", "nobody", "",
	} {
		for _, host := range []string{"", "db1", "DB1"} {
			want, wantErr := postern.AccountPerson(all, name, host)
			got, err := db.AccountPerson(ctx, name, host)
			if got != want || postern.CodeOf(err) != postern.CodeOf(wantErr) {
				t.Errorf("%q on %q: %q, %v; want %q, %v", name, host, got, err, want, wantErr)
			}
		}
	}
}
