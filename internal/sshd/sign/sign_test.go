package sign

import (
	"slices"
	"strconv"
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
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
		rule, err := RuleFor(rules, c.groups, EnrolledKey{})
		var got Certificate
		if err == nil {
			got, err = rule.Certificate(c.person, EnrolledKey{})
		}
		if (err == nil) != (c.want != nil) || err == nil && !slices.Equal(got.Principals, c.want) {
			t.Errorf("under %s, %s of %v may be %v: %v", c.rules, c.person, c.groups, got.Principals, err)
		}
		if err != nil && postern.CodeOf(err) != postern.Denied {
			t.Errorf("under %s, %s of %v: %v", c.rules, c.person, c.groups, err)
		}
	}
}

// TestRulesAskForKeys holds which keys rules certify.
func TestRulesAskForKeys(t *testing.T) {
	inFile, _ := posterntest.NewSSHKey(t, t.TempDir(), "key")
	ordinary := EnrolledKey{Public: inFile.PublicKey()}
	claimed := EnrolledKey{Public: posterntest.NewSecurityKey(t, false).PublicKey()}
	attested := claimed
	attested.Enrolled, attested.Attested, attested.AAGUID, attested.Maker = true, true, "a-b", "Maker"
	verified := attested
	verified.VerifyRequired = true
	for _, c := range []struct {
		key  string
		want []bool // of an ordinary one, one that says it is in hardware, attested, with its PIN
	}{
		{"", []bool{true, true, true, true}},
		{"key.hardware", []bool{false, true, true, true}},
		{"key.attested", []bool{false, false, true, true}},
		{"key.attested && key.user_verified", []bool{false, false, false, true}},
		{`key.model in ["a-b"] && key.maker == "Maker"`, []bool{false, false, true, true}},
		{`key.type == "ssh-ed25519"`, []bool{true, false, false, false}},
		{"!key.enrolled", []bool{true, true, false, false}},
		{`key.model.matches("(a*)*b") && 1 / 0 == 1`, []bool{false, false, false, false}},
	} {
		rules := []Rule{{Key: c.key}}
		var err error
		if rules[0].condition, err = condition(c.key); err != nil {
			t.Fatal(c.key, err)
		}
		for i, k := range []EnrolledKey{ordinary, claimed, attested, verified} {
			rule, err := RuleFor(rules, nil, k)
			if (err == nil) != c.want[i] || err != nil && postern.HintOf(err) == "" {
				t.Errorf("%q, key %d: %v", c.key, i, err)
			}
			if got, cerr := rule.Certificate("alice", k); err == nil && (cerr != nil ||
				got.VerifyRequired != (i == 3)) {
				t.Errorf("%q, key %d: %+v, %v", c.key, i, got, cerr)
			}
		}
	}
	for _, wrong := range []string{"key.atested", "key", "1", "key.attested &&", `"x"`, "cert.subject.cn == 'x'"} {
		_, err := ParseRules([]byte(`[{"key": ` + strconv.Quote(wrong) + `}]`))
		if postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
