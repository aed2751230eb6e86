package front

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/postern-project/postern/gate"
)

// waysSite has one guard of each kind of way. Its peers are at 127.0.0.1.
const waysSite = ` {
	require /near* {
		person alice
		or anyone {
			address 127.0.0.0/8
		}
	}
	require /far* {
		person alice
		or anyone {
			address 192.0.2.0/24
		}
	}
	require /wiki* {
		person alice
		or anyone {
			method GET HEAD
		}
	}
	require /public* {
		person alice
		or anyone {
			rule ` + "`request.path.startsWith(\"/public/open\")`" + `
		}
	}
	require /token* {
		person alice
		or anyone {
			address 127.0.0.1
			rule ` + "`request.headers[\"x-token\"] == \"17\"`" + `
		}
		or {
			person bob
			method GET
		}
	}
	require /past* {
		person alice
		or anyone {
			rule ` + "`time < timestamp(\"2020-01-01T00:00:00Z\")`" + `
		}
	}
	reverse_proxy APP
}
`

func (h *rig) serveWays(t *testing.T) (https, http int) {
	t.Helper()
	sites := "localhost:HTTPS" + waysSite + "http://localhost:HTTP" + waysSite + "twin.localhost:HTTPS" + waysSite
	return h.serve(t, strings.ReplaceAll(sites, "APP", newLaxApp(t).URL))
}

// TestWaysToPass tries each way over every protocol, by those who may pass and by
// those who forge what it looks at.
func TestWaysToPass(t *testing.T) {
	h := newRig(t)
	https, http := h.serveWays(t)
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	current().poll(t.Context())
	for _, c := range []struct {
		method, target string
		who            *holder
		headers        string
		status         int
	}{
		{"GET", "/near/", nil, "", 200},
		{"GET", "/near/", bob, "", 200},
		{"GET", "/near/", nil, "X-Forwarded-For: 198.51.100.1", 200},
		{"GET", "/far/", nil, "", 403},
		{"GET", "/far/", bob, "", 403},
		{"GET", "/far/", alice, "", 200},
		{"GET", "/far/", nil, "X-Forwarded-For: 192.0.2.1", 403},
		{"GET", "/far/", nil, "X-Real-IP: 192.0.2.1", 403},
		{"GET", "/far/", nil, "Forwarded: for=192.0.2.1", 403},
		{"GET", "/far/", nil, "True-Client-IP: 192.0.2.1", 403},
		{"GET", "/far/", nil, "CF-Connecting-IP: 192.0.2.1", 403},
		{"GET", "/wiki/", nil, "", 200},
		{"HEAD", "/wiki/", nil, "", 200},
		{"POST", "/wiki/", nil, "", 403},
		{"POST", "/wiki/", bob, "", 403},
		{"POST", "/wiki/", alice, "", 200},
		{"OPTIONS", "/wiki/", nil, "", 403},
		{"TRACE", "/wiki/", nil, "", 403},
		{"PROPFIND", "/wiki/", nil, "", 403},
		{"get", "/wiki/", nil, "", 403},
		{"GET", "/wiki/", nil, "X-HTTP-Method-Override: DELETE", 403},
		{"GET", "/wiki/", nil, "X_HTTP_Method_Override: DELETE", 200},
		{"GET", "/wiki/", nil, "x-http-method: put", 403},
		{"GET", "/wiki/", nil, "X-Method-Override: PATCH", 403},
		{"GET", "/wiki/", nil, "X-Method-Override: GET, PATCH", 403},
		{"GET", "/wiki/", nil, "X-HTTP-Method-Override: head", 200},
		{"POST", "/wiki/", nil, "X-HTTP-Method-Override: GET", 403},
		{"GET", "/wiki/", alice, "X-HTTP-Method-Override: DELETE", 200},
		{"GET", "/wiki/?_method=DELETE", nil, "", 403},
		{"GET", "/wiki/?a=b&%5fmethod=delete", nil, "", 403},
		{"GET", "/wiki/?a=b;.method=delete", nil, "", 403},
		{"GET", "/wiki/?_method=get", nil, "", 200},
		{"GET", "/public/open/x", nil, "", 200},
		{"GET", "/public/", nil, "", 403},
		{"GET", "/public/open/../x", nil, "", 403},
		{"GET", "/public/open;/../x", nil, "", 403},
		{"GET", "/token/", nil, "", 403},
		{"GET", "/token/", nil, "X-Token: 17", 200},
		{"GET", "/token/", nil, "X-Token: 17\r\nX-Token: 18", 403},
		{"GET", "/token/", bob, "", 200},
		{"POST", "/token/", bob, "", 403},
		{"POST", "/token/", alice, "", 200},
		{"GET", "/past/", nil, "", 403},
		{"GET", "/past/", alice, "", 200},
	} {
		for _, tr := range transports {
			headers := strings.Split(c.headers, "\r\n")
			if c.headers == "" {
				headers = nil
			}
			a := attempt{proto: tr.proto, version: tr.version, sni: "localhost", host: fmt.Sprintf("localhost:%d",
				https), method: c.method, target: c.target, who: c.who, headers: headers}
			if tr.proto == "2" {
				for i := range a.headers {
					a.headers[i] = lowerName(a.headers[i])
				}
			}
			if got, err := h.try(https, a); err != nil || got.status != c.status ||
				c.who == nil && strings.Contains(got.body, "DELETE") {
				t.Errorf("HTTP/%s %s %s %q as %v: %d %v, want %d", tr.proto, c.method, c.target, c.headers,
					c.who != nil, got.status, err, c.status)
			}
		}
	}
	for target, want := range map[string]int{"/near/": 200, "/far/": 301, "/wiki/": 200, "/past/": 301} {
		if got, err := h.try(http, attempt{
			proto: "1.1", host: fmt.Sprintf("localhost:%d", http),
			target: target,
		}); err != nil || got.status != want {
			t.Errorf("plain HTTP %s: %d %v, want %d", target, got.status, err, want)
		}
	}
	for _, target := range []string{"localhost:443", "/wiki/", "/far/"} {
		a := attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost", method: "CONNECT",
			target: target,
		}
		if got, _ := h.try(https, a); got.status == 200 {
			t.Errorf("CONNECT %s passes", target)
		}
	}
}

func lowerName(header string) string {
	name, value, _ := strings.Cut(header, ":")
	return strings.ToLower(name) + ":" + value
}

// TestNoIdentityWithoutACertificate checks that the application gets no identity of a
// client that passes without a certificate, also on a connection for another site.
func TestNoIdentityWithoutACertificate(t *testing.T) {
	h := newRig(t)
	https, _ := h.serveWays(t)
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	current().poll(t.Context())
	for _, c := range []struct {
		who         *holder
		sni, target string
		status      int
		named       bool
	}{
		{alice, "localhost", "/wiki/", 200, true},
		{bob, "localhost", "/wiki/", 200, false},
		{nil, "localhost", "/wiki/", 200, false},
		{alice, "twin.localhost", "/wiki/", 200, false},
		{alice, "twin.localhost", "/far/", 421, false},
	} {
		a := attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: c.sni, host: "localhost", target: c.target,
			who: c.who, headers: []string{"Postern-Person: mallory"},
		}
		got, err := h.try(https, a)
		if err != nil || got.status != c.status || strings.Contains(got.body, "Postern-Person: alice") != c.named ||
			strings.Contains(got.body, "mallory") {
			t.Errorf("%s for %s: %d %v %s", c.target, c.sni, got.status, err, got.body)
		}
	}
}

// TestALastingExchangeKeepsItsWay decides again about requests whose way has
// ended while another holds.
func TestALastingExchangeKeepsItsWay(t *testing.T) {
	h := newRig(t)
	alice := h.person(t, "alice")
	l, trust := polled(t)
	now := time.Now()
	until := fmt.Sprintf("time < timestamp(%q)", now.Add(time.Second).UTC().Format(time.RFC3339Nano))
	always := gate.Way{Anyone: true, Methods: []string{"GET"}}
	shown := func(who *holder) *tls.ConnectionState {
		c := new(tls.ConnectionState)
		if who != nil {
			c.PeerCertificates = append(c.PeerCertificates, who.cert)
		}
		return c
	}
	for _, c := range []struct {
		name  string
		ways  []gate.Way
		who   *holder
		by    passedBy
		later gate.Reason
	}{
		{
			"an open way ends",
			[]gate.Way{{Persons: []string{"alice"}}, {Anyone: true, Rules: []string{until}}},
			nil,
			withoutOne, gate.Closed,
		},
		{"one of two open ways ends", []gate.Way{
			{Persons: []string{"alice"}},
			{Anyone: true, Rules: []string{until}},
			always,
		}, nil, withoutOne, gate.OK},
		{
			"the certificate's way ends, whose holder was named",
			[]gate.Way{{Rules: []string{until}}, always},
			alice,
			byCertificate, gate.RuleFailed,
		},
		{"one of two certificate's ways ends", []gate.Way{
			{Rules: []string{until}},
			{Persons: []string{"alice"}},
			always,
		}, alice, byCertificate, gate.OK},
	} {
		g, err := gate.New(gate.Config{Paths: []string{"/"}, Way: c.ways[0], Or: c.ways[1:]})
		if err != nil {
			t.Fatal(err)
		}
		q := authorizationRequest{
			site: &siteGuard{Guard: g, trust: trust}, conn: new(conn), tls: shown(c.who),
			request: &gate.Request{Method: "GET", Path: "/"},
		}
		f := q.decide(t.Context(), l, now)
		if f.reason != gate.OK || f.by != c.by {
			t.Errorf("%s: before: %s by %d", c.name, f.reason, f.by)
		}
		q.passed = f.by
		if f := q.decide(t.Context(), l, now.Add(time.Second)); f.reason != c.later {
			t.Errorf("%s: %s, want %s", c.name, f.reason, c.later)
		}
	}
}

// TestWaysAreReadClosed reads directives that would open more than they seem to.
func TestWaysAreReadClosed(t *testing.T) {
	for body, problem := range map[string]string{
		"or { }":                   "an empty one would let all clients pass",
		"or anyone { }":            "an empty one would let all clients pass",
		"or anyone":                "an empty one would let all clients pass",
		"or anyone { person dan }": "neither persons nor groups",
		"or anyone { rule `cert.serial == \"1\"` }": "a rule for anyone reads the request",
		"or person dan":                                     "or is followed by a block",
		"or anyone anyone { method GET }":                   "or is followed by a block",
		"or { trust a.pem }":                                "or knows",
		"or { anyone }":                                     "or knows",
		"or { or { person dan } }":                          "or knows",
		"or { address 10.0.0.0/33 }":                        "is not a network",
		"or { address }":                                    "wrong argument count",
		"or { method get }":                                 "in capitals",
		"person dan\nstatus 404":                            "status is for a guard that asks for no certificate",
		"anyone\nmethod GET\nor { person dan }\nstatus 404": "status is for a guard that asks for no certificate",
		"anyone":                 "has an address, a method or a rule",
		"method GET\nstatus 404": "status is for a guard that asks for no certificate",
	} {
		body = strings.NewReplacer("{ ", "{\n", " }", "\n}").Replace(body)
		_, _, err := Adapt([]byte("localhost {\n\trequire /x* {\n"+body+"\n}\n}\n"), "Caddyfile")
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v, want %q", body, err, problem)
		}
	}
}

// FuzzWays reads the lines of a block. What is accepted has no way that lets all clients
// pass.
func FuzzWays(f *testing.F) {
	for _, seed := range []string{
		"person alice\nor anyone {\naddress private_ranges\n}", "or anyone {\nmethod GET HEAD\n}",
		"or {\nperson bob\nmethod GET\n}",
		"anyone\naddress ::1\nstatus 404", "or anyone {\nrule `request.path.startsWith(\"/a\")`\n}\ntrust a.pem",
		"or {\n}", "or anyone {\n}",
		"header_up X-Subject `cert.subject.dn`\nor anyone {\nmethod GET\n}",
		"header_up X `person.groups`\nheader_up Y `\"1\"`",
		"header_up X <<<{\nmethod GET\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		tokens, err := caddyfile.Tokenize([]byte("require {\n"+body+"\n}"), "Caddyfile")
		if err != nil {
			return
		}
		d := caddyfile.NewDispenser(tokens)
		r := &Require{Paths: []string{"/"}}
		d.Next()
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			if parseWord("require", requireWords, r, d) != nil {
				return
			}
		}
		if r.config(nil).Validate() != nil {
			return
		}
		for _, h := range r.HeaderUp {
			if checkHeaderUp(h.Name) != nil || h.Name == "" {
				t.Errorf("a header %q is sent: %q", h.Name, body)
			}
		}
		for _, w := range r.config(nil).Ways() {
			if w.Anyone && len(w.Addresses)+len(w.Methods)+len(w.Rules) == 0 {
				t.Errorf("anyone passes: %q", body)
			}
		}
	})
}

// TestNoSpellingPassesByAnotherPath tries every spelling of a guarded address on a
// site of which one path is open to everybody, against files and against a careless
// application.
func TestNoSpellingPassesByAnotherPath(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/public/index.html", public)
	h.file(t, "www/wp-login.php", secret)
	h.file(t, "www/wp-admin/index.html", secret)
	const site = ` {
	root * DIR/www
	require {
		person alice
		or anyone {
			rule ` + "`request.path.startsWith(\"/public\")`" + `
			method GET HEAD
		}
	}
	%s
}
`
	https, plain := h.serve(t, "localhost:HTTPS"+fmt.Sprintf(site, "file_server")+"proxy.localhost:HTTPS"+
		fmt.Sprintf(site, "reverse_proxy "+newLaxApp(t).URL)+"http://localhost:HTTP"+fmt.Sprintf(site, "file_server"))
	bob := h.person(t, "bob")
	current().poll(t.Context())
	var attempts, plainly []attempt
	for _, host := range []string{"localhost", "proxy.localhost"} {
		for _, prefix := range []string{"/wp-admin", "/wp-login.php"} {
			for i, target := range append(spellings(prefix), absolute(https, prefix)...) {
				for j, tr := range []transport{transports[3], transports[5]} {
					a := attempt{
						proto: tr.proto, version: tr.version, sni: host,
						host: fmt.Sprintf("%s:%d", host, https), target: target,
					}
					if (i+j)%2 == 0 {
						a.target, a.who = "/public/.."+target, bob
					}
					attempts = append(attempts, a)
				}
				plainly = append(plainly, attempt{
					proto: "1.1", host: fmt.Sprintf("%s:%d", host, plain),
					target: target,
				})
			}
		}
	}
	h.sweep(t, https, attempts, leaks)
	h.sweep(t, plain, plainly, leaks)
	t.Logf("%d attempts", len(attempts)+len(plainly))
	for _, host := range []string{"localhost", "proxy.localhost"} {
		for _, tr := range transports {
			got, err := h.try(https, attempt{
				proto: tr.proto, version: tr.version, sni: host, host: host,
				target: "/public/",
			})
			if err != nil || got.status != 200 || !strings.Contains(got.body, public) {
				t.Errorf("the open path at %s over HTTP/%s: %d %v", host, tr.proto, got.status, err)
			}
		}
	}
}
