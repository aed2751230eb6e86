package gate_test

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/postern-project/postern/gate"
)

// A mistake in a rule is found when the rule is compiled, and says where it is.
func ExampleCompileRule() {
	for _, source := range []string{
		`cert.subject.ou.exists(u, u == "audit")`,
		`person.groups.exists(g, g == "audit") && address.within("192.0.2.0/24")`,
		`cert.subject.organisation == "Example"`,
		`person.name`,
	} {
		_, err := gate.CompileRule(source)
		fmt.Println(source, "→", err)
	}
	// Output:
	// cert.subject.ou.exists(u, u == "audit") → <nil>
	// person.groups.exists(g, g == "audit") && address.within("192.0.2.0/24") → <nil>
	// cert.subject.organisation == "Example" → rule, line 1, column 13: undefined field 'organisation'
	// person.name → rule, line 1, column 1: a rule is true or false, and this is a string
}

// A guard decides about each request. What no way lets pass is refused.
func ExampleGuard_Decide() {
	g, err := gate.New(gate.Config{
		Paths: []string{"/wiki*"},
		Way:   gate.Way{Anyone: true, Addresses: []string{"192.0.2.0/24"}},
		Or: []gate.Way{{
			Anyone: true,
			Rules:  []string{`request.path == "/wiki/help" && time.getHours("UTC") >= 8`},
		}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range []gate.Request{
		{Method: "GET", Path: "/wiki/", Address: netip.MustParseAddr("192.0.2.7")},
		{Method: "GET", Path: "/wiki/", Address: netip.MustParseAddr("198.51.100.7")},
		{Method: "GET", Path: "/wiki/help", Address: netip.MustParseAddr("198.51.100.7")},
	} {
		r.Time = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)
		fmt.Println(r.Address, r.Path, g.Decide(&gate.Subject{Request: &r}) == gate.OK)
	}
	// Output:
	// 192.0.2.7 /wiki/ true
	// 198.51.100.7 /wiki/ false
	// 198.51.100.7 /wiki/help true
}
