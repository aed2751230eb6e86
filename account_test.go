package postern_test

import (
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

func TestAccountsBelongToPeople(t *testing.T) {
	accounts := []postern.Account{
		{Name: "*@corp.example.com", AnyCase: true},
		{Name: `CORP\*`, AnyCase: true},
		{Name: "boss@corp.example.com", AnyCase: true, Person: "carol"},
		{Name: "Dave", Person: "dave"},
		{Name: "jürgen", Person: "juergen", AnyCase: true},
		{Name: "www", Host: "web1", Person: "alice"},
		{Name: "www", Person: "bob"},
		{Name: "a.liddell@*", Person: "alice"},
		{Name: "adm-*", Person: ""},
		{Name: "two@x", Person: "alice", AnyCase: true},
		{Name: "TWO@X", Person: "bob", AnyCase: true},
	}
	for _, c := range []struct{ name, host, person string }{
		{"alice@corp.example.com", "h", "alice"},
		{"Alice@CORP.example.com", "h", "alice"},
		{"boss@corp.example.com", "h", "carol"},
		{`CORP\carol`, "h", "carol"},
		{`corp\Carol`, "h", "carol"},
		{"Dave", "h", "dave"},
		{"DAVE", "h", "DAVE"}, // no person: a person's name has no capitals
		{"jürgen", "h", "juergen"},
		{"JÜRGEN", "h", "juergen"},
		{"www", "web1", "alice"},
		{"www", "WEB1", "alice"},
		{"www", "web2", "bob"},
		{"a.liddell@corp.example.com", "h", "alice"},
		{"adm-alice", "h", "alice"},
		{"adm-", "h", "adm-"},
		{"@corp.example.com", "h", "@corp.example.com"},
		{"\u212aen@corp.example.com", "h", "\u212aen@corp.example.com"}, // the Kelvin sign is no k
		{"a b@corp.example.com", "h", "a b@corp.example.com"},
		{"alice@corp.example.com.evil.org", "h", "alice@corp.example.com.evil.org"},
		{"alice", "h", "alice"},
		{"two@x", "h", "denied"},
	} {
		got, err := postern.AccountPerson(accounts, c.name, c.host)
		if postern.CodeOf(err) == postern.Denied {
			got = "denied"
		}
		if got != c.person {
			t.Errorf("%s on %s is %q, %v; want %q", c.name, c.host, got, err, c.person)
		}
	}
}

func TestAccountsAreValidated(t *testing.T) {
	for _, a := range []postern.Account{
		{},
		{Name: "*", Person: ""},
		{Name: "*", Person: "alice"},
		{Name: "a*b*", Person: "alice"},
		{Name: "alice"},
		{Name: "x", Person: "Not A Person"},
		{Name: "a\nb", Person: "alice"},
		{Name: strings.Repeat("a", 257), Person: "alice"},
	} {
		if a.Validate() == nil {
			t.Errorf("%+v is valid", a)
		}
	}
}

func FuzzAccountPerson(f *testing.F) {
	f.Add("*@corp", "alice@corp", true)
	f.Add("a*", "ab", false)
	f.Fuzz(func(t *testing.T, pattern, name string, anyCase bool) {
		a := postern.Account{Name: pattern, AnyCase: anyCase}
		if a.Validate() != nil {
			return
		}
		if person, err := postern.AccountPerson([]postern.Account{a}, name, ""); err != nil ||
			person != name && !postern.ValidName(person) {
			t.Fatalf("%q: %q, %v", name, person, err)
		}
	})
}
