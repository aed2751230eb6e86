package sign

import (
	"slices"
	"testing"

	"github.com/postern-project/postern"
)

// TestRulesOpenAccounts holds which accounts rules give to whom: none of a name
// that a person chose, and root only by its name.
func TestRulesOpenAccounts(t *testing.T) {
	for _, c := range []struct {
		rules  string
		person string
		groups []string
		want   []string // nil: no certificate
	}{
		{"", "alice", nil, []string{"alice"}},
		{"", "alice", []string{postern.SignedUp}, nil},
		{"", "root", nil, nil},
		{`[{}]`, "deploy", []string{postern.SignedUp}, nil},
		{`[{"principals":["guest"]}]`, "deploy", []string{postern.SignedUp}, nil},
		{
			`[{"principals":["guest"],"groups":["signed-up"]},{}]`, "deploy",
			[]string{postern.SignedUp},
			[]string{"guest"},
		},
		{`[{},{"groups":["dev"]}]`, "deploy", []string{"dev", postern.SignedUp}, []string{"deploy"}},
		{`[{"principals":["{person}","root"],"groups":["ops"]}]`, "alice", []string{"ops"}, []string{"alice", "root"}},
		{`[{"principals":["root"]}]`, "root", nil, []string{"root"}},
		{`[{"principals":["{person}","deploy"]}]`, "root", nil, nil},
		{`[{"principals":["r{person}"]}]`, "oot", nil, nil},
	} {
		rules, err := ParseRules([]byte(c.rules))
		if err != nil {
			t.Fatal(c.rules, err)
		}
		rule, err := RuleFor(rules, c.groups)
		var got Certificate
		if err == nil {
			got, err = rule.Certificate(c.person, nil)
		}
		if (err == nil) != (c.want != nil) || err == nil && !slices.Equal(got.Principals, c.want) {
			t.Errorf("under %s, %s of %v may be %v: %v", c.rules, c.person, c.groups, got.Principals, err)
		}
		if err != nil && postern.CodeOf(err) != postern.Denied {
			t.Errorf("under %s, %s of %v: %v", c.rules, c.person, c.groups, err)
		}
	}
}
