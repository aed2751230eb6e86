package gate_test

import (
	"net/netip"
	"testing"

	"github.com/postern-project/postern/gate"
)

func TestPatternsInPlaceOfPrefixes(t *testing.T) {
	paths, err := gate.CompilePaths([]string{`~/\.ht`, `~\.cgi(?:/|$)`, `~^/Setup/[0-9]+$`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{
		"/.htaccess": "guarded", "/a/b/.htpasswd": "guarded", "/x.cgi": "guarded", "/x.CGI/info": "guarded",
		"/x.cgi;a/b":    "guarded",
		"/a//.htaccess": "guarded", "/setup/12": "guarded", "/%2ehtaccess": "400",
		"/x.cgix": "public", "/setup/a": "public", "/": "public",
	} {
		if got := read(t, paths, s); got != want {
			t.Errorf("%s is %s, want %s", s, got, want)
		}
	}
	if _, err := gate.CompilePaths([]string{`~(?=x)`}, nil); err == nil {
		t.Error("a pattern that RE2 cannot read is compiled")
	}
}

// TestRulesOverEveryReading holds a rule on the path against the ways in which
// servers may read it.
func TestRulesOverEveryReading(t *testing.T) {
	g, err := gate.New(gate.Config{Paths: []string{"/"}, Way: gate.Way{
		Anyone: true,
		Rules:  []string{`request.path.startsWith("/Public") && !request.path.matches("(?i)/hidden")`},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]gate.Reason{
		"/Public": gate.OK, "/Public/x": gate.OK, "/Public/a/../b": gate.OK, "/Public/a;b": gate.OK,
		"/": gate.RuleFailed, "/Public/../x": gate.RuleFailed, "/Public//../../x": gate.RuleFailed,
		"/Public;/../x":  gate.RuleFailed,
		"/Public/HIDDEN": gate.RuleFailed, "/Public/hid;x/../../Public/hidden": gate.RuleFailed,
		"/Public/a/..//hidden": gate.RuleFailed,
	} {
		if got := g.Decide(&gate.Subject{Request: &gate.Request{Path: path}}); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestAnyoneFromAnAddress(t *testing.T) {
	g, err := gate.New(gate.Config{
		Paths: []string{"/status"},
		Way:   gate.Way{Anyone: true, Rules: []string{`address.within("192.0.2.0/24") && request.method == "GET"`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]gate.Reason{"192.0.2.7": gate.OK, "198.51.100.1": gate.RuleFailed} {
		if got := g.Decide(&gate.Subject{Request: &gate.Request{
			Method:  "GET",
			Address: netip.MustParseAddr(address),
		}}); got != want {
			t.Errorf("from %s: %v, want %v", address, got, want)
		}
	}
	if g.Decide(nil) == gate.OK || g.Decide(&gate.Subject{}) == gate.OK {
		t.Error("passes without a request")
	}
	for name, c := range map[string]gate.Config{
		"without a rule": {Paths: []string{"/"}, Way: gate.Way{Anyone: true}},
		"beside persons": {
			Paths: []string{"/"},
			Way:   gate.Way{Anyone: true, Persons: []string{"dan"}, Rules: []string{"true"}},
		},
		"with a rule on the person": {
			Paths: []string{"/"},
			Way:   gate.Way{Anyone: true, Rules: []string{`person.name == "dan"`}},
		},
		"with a rule on a certificate": {
			Paths: []string{"/"},
			Way:   gate.Way{Anyone: true, Rules: []string{`true || cert.serial == "1"`}},
		},
		"with a rule on the chain": {
			Paths: []string{"/"},
			Way:   gate.Way{Anyone: true, Rules: []string{`chain.exists(c, c.serial == "1")`}},
		},
		"with a depth of certificates": {
			Paths: []string{"/"}, Depth: 1,
			Way: gate.Way{Anyone: true, Rules: []string{"true"}},
		},
		"with a rule on a list's issuer": {
			Paths: []string{"/"},
			Way:   gate.Way{Anyone: true, Rules: []string{`size(issuer.subject.cn) == 0`}},
		},
	} {
		if _, err := gate.New(c); err == nil {
			t.Errorf("anyone %s is accepted", name)
		}
	}
}
