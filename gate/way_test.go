package gate_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/postern-project/postern/gate"
)

func TestAnyWayIsEnough(t *testing.T) {
	g, err := gate.New(gate.Config{
		Paths: []string{"/"},
		Way:   gate.Way{Persons: []string{"alice"}},
		Or: []gate.Way{
			{Anyone: true, Addresses: []string{"192.0.2.0/24", "2001:db8::1"}},
			{Anyone: true, Methods: []string{"GET", "HEAD"}, Rules: []string{`request.path.startsWith("/open")`}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if g.Anyone() || !g.HasOpen() || !g.Moving() {
		t.Errorf("anyone %v, open %v, moving %v", g.Anyone(), g.HasOpen(), g.Moving())
	}
	far := netip.MustParseAddr("198.51.100.1")
	for _, c := range []struct {
		gate.Request
		want bool
	}{
		{gate.Request{Method: "POST", Path: "/", Address: netip.MustParseAddr("192.0.2.9")}, true},
		{gate.Request{Method: "POST", Path: "/", Address: netip.MustParseAddr("2001:db8::1")}, true},
		{gate.Request{Method: "POST", Path: "/", Address: netip.MustParseAddr("2001:db8::2")}, false},
		{gate.Request{Method: "POST", Path: "/"}, false},
		{gate.Request{Method: "GET", Path: "/open/x", Address: far}, true},
		{gate.Request{Method: "GET", Path: "/open/../x", Address: far}, false},
		{gate.Request{Method: "GET", Path: "/x", Address: far}, false},
		{gate.Request{Method: "DELETE", Path: "/open/x", Address: far}, false},
		{gate.Request{Method: "GET", Path: "/open/x", Query: "_method=DELETE", Address: far}, false},
		{gate.Request{Method: "GET", Path: "/open/x", Query: "%5BMethod=delete", Address: far}, false},
		{gate.Request{Method: "GET", Path: "/open/x", Query: "method=delete", Address: far}, true},
	} {
		if got := g.Open(&c.Request); got != c.want {
			t.Errorf("%+v: %v", c.Request, got)
		}
	}
	if g.Open(nil) || g.DecideCertificate(nil) == gate.OK || g.Decide(nil) == gate.OK {
		t.Error("passes without a request")
	}
}

// FuzzMethods holds that no header and no query opens what the method alone
// does not, and that naming a method never opens more.
func FuzzMethods(f *testing.F) {
	g, err := gate.New(gate.Config{
		Paths: []string{"/"},
		Way:   gate.Way{Anyone: true, Methods: []string{"GET", "HEAD"}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("GET", "X-HTTP-Method-Override", "DELETE", "a=b")
	f.Add("POST", "x_http_method", "GET", "_method=GET")
	f.Add("HEAD", "X.Method.Override", "put,get", "a;%5Fmethod=put")
	f.Fuzz(func(t *testing.T, method, name, value, query string) {
		r := &gate.Request{Method: method, Path: "/", Query: query, Header: map[string][]string{name: {value}}}
		plain := slices.Contains([]string{"GET", "HEAD"}, method)
		if g.Open(r) && !plain {
			t.Errorf("%+v passes", r)
		}
		if g.Open(&gate.Request{Method: method, Path: "/"}) != plain {
			t.Errorf("%q alone: %v", method, !plain)
		}
	})
}
