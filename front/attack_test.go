package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestNoSpellingPassesTheGuard tries every spelling over every protocol,
// against files and against a careless application.
func TestNoSpellingPassesTheGuard(t *testing.T) {
	h, https, plain := attackedRig(t)
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	var attempts, plainly []attempt
	for _, host := range []string{"localhost", "proxy.localhost"} {
		for _, prefix := range []string{"/wp-admin", "/wp-login.php"} {
			targets := spellings(prefix)
			for i, target := range append(targets, absolute(https, prefix)...) {
				for j, tr := range transports {
					who := bob
					if j < 3 {
						who = nil
					}
					if (i+j)%2 == 0 && strings.HasPrefix(target, prefix) {
						continue // of those that are plainly under the prefix, every second
					}
					attempts = append(attempts, attempt{
						proto: tr.proto, version: tr.version, sni: host,
						host: fmt.Sprintf("%s:%d", host, https), target: target, who: who,
					})
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

	// With the right certificate the same requests pass.
	for _, host := range []string{"localhost", "proxy.localhost"} {
		for _, tr := range transports {
			a := attempt{proto: tr.proto, version: tr.version, sni: host, host: host, target: "/wp-admin/", who: alice}
			if got, err := h.try(https, a); err != nil || got.status != 200 || !strings.Contains(got.body, secret) {
				t.Errorf("alice at %s over HTTP/%s: %d %v", host, tr.proto, got.status, err)
			}
		}
	}
}

// TestNoImpostorPassesTheGuard tries every wrong certificate over every
// protocol, and holds that it takes no public page away.
func TestNoImpostorPassesTheGuard(t *testing.T) {
	h, https, _ := attackedRig(t)
	h.person(t, "alice")
	who := impostors(t, h)
	current().poll(t.Context())
	var attempts []attempt
	for _, name := range slices.Sorted(maps.Keys(who)) {
		for _, tr := range transports {
			for _, host := range []string{"localhost", "proxy.localhost"} {
				for _, target := range []string{
					"/wp-admin/", "/wp-login.php", "//wp-admin/", "/x/../wp-admin/",
					"/WP-ADMIN/", "/wp-admin;x", "/", "/public/",
				} {
					attempts = append(attempts, attempt{
						proto: tr.proto, version: tr.version, sni: host, host: host,
						target: target, who: who[name], headers: []string{"X-Who: " + name},
					})
				}
			}
		}
	}
	h.sweep(t, https, attempts, func(a attempt, got answer, err error) string {
		isPublic := a.target == "/" || a.target == "/public/"
		switch {
		case strings.Contains(got.body, secret):
			return "leaked"
		case isPublic && (got.status != http.StatusOK || !strings.Contains(got.body, public)):
			return "lost a public page"
		case !isPublic && got.status != http.StatusForbidden:
			return "was not refused"
		}
		return ""
	})
}

// TestEveryRefusalSaysWhy holds the refusals of each wrong certificate to its
// reason.
func TestEveryRefusalSaysWhy(t *testing.T) {
	h, https, _ := attackedRig(t)
	h.person(t, "alice")
	who := impostors(t, h)
	current().poll(t.Context())
	for name, want := range map[string]string{
		"no certificate": "none-shown", "another person": "not-the-person", "a twin of the issuer": "another-ca",
		"oneself":       "another-ca",
		"the server CA": "another-ca", "an expired certificate": "expired",
		"a certificate from tomorrow": "not-yet-valid",
		"a server's certificate":      "wrong-usage", "too long a chain": "too-deep",
		"a revoked certificate": "revoked",
		"a suspended person":    "suspended", "a disabled certificate": "disabled",
		"a certificate never issued": "unknown",
	} {
		got, err := h.try(https, attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
			target: "/wp-admin/", who: who[name], headers: []string{"Accept: application/json"},
		})
		if err != nil || !strings.Contains(got.body, `"reason":"`+want+`"`) {
			t.Errorf("%s: %v %s, want %s", name, err, got.body, want)
		}
	}
}

// TestHostsThatDiffer sends one host's name in the handshake and another's in
// the request, as a connection does that a browser shares between sites.
func TestHostsThatDiffer(t *testing.T) {
	h, https, _ := attackedRig(t)
	alice := h.person(t, "alice")
	for _, c := range []struct {
		name, sni, host, target string
		who                     *holder
		status                  int
		body                    string
	}{
		{"a shared connection, guarded", "open.localhost", "localhost", "/wp-admin/", alice, 421, ""},
		{"a shared connection, public", "open.localhost", "localhost", "/", alice, 200, public},
		{"a shared connection, no certificate", "open.localhost", "localhost", "/wp-admin/", nil, 421, ""},
		{"between two guarded sites", "proxy.localhost", "localhost", "/wp-admin/", alice, 421, ""},
		{"guarded handshake, open site", "localhost", "open.localhost", "/", alice, 200, public},
		{"a dot at the end", "localhost", "localhost.", "/wp-admin/", alice, 200, secret},
		{"a dot and a port", "localhost", fmt.Sprintf("localhost.:%d", https), "/wp-admin/", alice, 200, secret},
		{"capitals", "localhost", "LocalHost", "/wp-admin/", alice, 200, secret},
		{"no name in the handshake", "", "localhost", "/wp-admin/", alice, 200, secret},
		{"no name in the handshake, no certificate", "", "localhost", "/wp-admin/", nil, 403, ""},
		{"no name in the handshake, public", "", "localhost", "/", nil, 200, public},
	} {
		for _, tr := range transports {
			got, err := h.try(https, attempt{
				proto: tr.proto, version: tr.version, sni: c.sni, host: c.host,
				target: c.target, who: c.who,
			})
			if err != nil || got.status != c.status || !strings.Contains(got.body, c.body) ||
				c.body != secret && strings.Contains(got.body, secret) {
				t.Errorf("%s: HTTP/%s: %d %.60q %v", c.name, tr.proto, got.status, got.body, err)
			}
		}
	}
	for _, tr := range transports[:2] {
		got, err := h.try(https, attempt{proto: "1.0", version: tr.version, sni: "localhost", target: "/wp-admin/"})
		if err != nil || strings.Contains(got.body, secret) {
			t.Errorf("no host at all: %d %q %v", got.status, got.body, err)
		}
	}
}

// TestResumedSessions holds that a ticket is good for the site and the CAs it was
// given under, for the same certificate, checked again.
func TestResumedSessions(t *testing.T) {
	h := newRig(t)
	other := issue(t, nil, authority("Other CA"))
	otherFile := h.file(t, "other.pem", string(other.pem()))
	h.file(t, "www/wp-admin/index.html", secret)
	h.file(t, "www/index.html", public)
	site := "%s:HTTPS {\n\troot * DIR/www\n\trequire /wp-admin* {\n\t\t%s\n\t}\n\tfile_server\n}\n"
	https, _ := h.serve(t, fmt.Sprintf(site, "localhost", "person alice")+
		fmt.Sprintf(site, "twin.localhost", "person alice")+
		fmt.Sprintf(site, "other.localhost", "trust "+otherFile)+
		"open.localhost:HTTPS {\n\troot * DIR/www\n\tfile_server\n}\n")
	alice := h.person(t, "alice")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			visit := func(sni string, who *holder, cache tls.ClientSessionCache) answer {
				t.Helper()
				got, err := h.try(https, attempt{
					proto: "1.1", version: version, sni: sni, host: sni,
					target: "/wp-admin/", who: who, cache: cache,
				})
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			cache := &oneSession{LRU: tls.NewLRUClientSessionCache(4)}
			if got := visit("localhost", alice, cache); got.status != 200 || got.resumed {
				t.Fatalf("first: %+v", got)
			}
			if got := visit("localhost", nil, cache); got.status != 200 || !got.resumed {
				t.Errorf("resumed: %d %v", got.status, got.resumed)
			}
			for _, sni := range []string{"twin.localhost", "other.localhost", "open.localhost"} {
				if got := visit(sni, nil, cache.copy()); got.resumed || sni != "open.localhost" && got.status != 403 {
					t.Errorf("ticket taken to %s: %d, resumed %v", sni, got.status, got.resumed)
				}
			}

			late := &oneSession{LRU: tls.NewLRUClientSessionCache(4)}
			if got := visit("localhost", nil, late); got.status != 403 {
				t.Errorf("without a certificate: %d", got.status)
			}
			if got := visit("localhost", alice, late); got.status != 200 {
				t.Errorf("who has got a certificate since is refused: %d", got.status)
			}

			serial := alice.cert.SerialNumber.Text(16)
			revoke := func(s postern.CredentialStatus) {
				h.change(func() { h.credentials[serial] = postern.Credential{Person: "alice", Status: s} })
				current().poll(t.Context())
			}
			defer revoke(postern.CredentialActive)
			revoke(postern.CredentialRevoked)
			if got := visit("localhost", nil, cache); got.status != 403 {
				t.Errorf("revoked, by ticket: %d", got.status)
			}
			second := h.person(t, "alice")
			current().poll(t.Context())
			if got := visit("localhost", second, cache); got.status != 200 || got.resumed {
				t.Errorf("after a refusal another certificate cannot be shown: %d, resumed %v", got.status,
					got.resumed)
			}
		})
	}
}

// oneSession is a client's cache that gives its session to every host.
type oneSession struct {
	LRU tls.ClientSessionCache
}

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return o.LRU.Get("") }
func (o *oneSession) Put(_ string, s *tls.ClientSessionState)    { o.LRU.Put("", s) }

func (o *oneSession) copy() *oneSession {
	c := &oneSession{LRU: tls.NewLRUClientSessionCache(4)}
	if s, ok := o.LRU.Get(""); ok {
		c.LRU.Put("", s)
	}
	return c
}

// TestALiveConnectionIsJudgedAnew revokes, suspends and lets the store go away
// between two requests of one connection.
func TestALiveConnectionIsJudgedAnew(t *testing.T) {
	h, https, _ := attackedRig(t)
	alice := h.person(t, "alice")
	current().poll(t.Context())
	serial := alice.cert.SerialNumber.Text(16)
	for _, proto := range []string{"1.1", "2"} {
		for _, c := range []struct {
			name   string
			status int
			change func()
		}{
			{"revoked", 403, func() {
				h.credentials[serial] = postern.Credential{Person: "alice", Status: postern.CredentialRevoked}
			}},
			{"suspended", 403, func() {
				h.persons["alice"] = postern.Person{Name: "alice", Status: postern.PersonSuspended}
			}},
			{"away", 503, func() { h.away = postern.Errorf(postern.Unavailable, "gone") }},
		} {
			live := dialLive(t, h, https, proto, alice)
			if got := live("/wp-admin/"); got.status != 200 {
				t.Fatalf("before: %d", got.status)
			}
			if got := live("/wp-admin/"); got.status != 200 {
				t.Fatalf("again: %d", got.status)
			}
			h.change(c.change)
			current().poll(t.Context())
			if c.name == "away" {
				current().asked.Add(-int64(staleAfter))
				if got := live("/"); got.status != 200 {
					t.Errorf("HTTP/%s: a public page is gone with the store: %d", proto, got.status)
				}
			}
			if got := live("/wp-admin/"); got.status != c.status || strings.Contains(got.body, secret) {
				t.Errorf("HTTP/%s %s: %d, want %d", proto, c.name, got.status, c.status)
			}
			h.change(func() {
				h.away = nil
				h.credentials[serial] = postern.Credential{Person: "alice", Status: postern.CredentialActive}
				h.persons["alice"] = postern.Person{Name: "alice", Status: postern.PersonActive}
			})
			current().poll(t.Context())
		}
	}
}

// dialLive returns a function that makes requests on one connection.
func dialLive(t *testing.T, h *rig, port int, proto string, who *holder) func(target string) answer {
	t.Helper()
	config := h.clientConfig(who)
	config.NextProtos = []string{map[string]string{"1.1": "http/1.1", "2": "h2"}[proto]}
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if proto == "2" {
		conn := newHTTP2(c)
		return func(target string) answer {
			t.Helper()
			got, err := conn.do(attempt{method: "GET", host: "localhost", target: target})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
	}
	tr := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return c, nil
	}, MaxConnsPerHost: 1}
	client := &http.Client{Transport: tr}
	return func(target string) answer {
		t.Helper()
		status, body := get(t, client, fmt.Sprintf("https://localhost:%d%s", port, target))
		return answer{status: status, body: body}
	}
}

// TestSubjectsWithTwoNames tries certificates whose subject names two people,
// in either order, against rules that compare.
func TestSubjectsWithTwoNames(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/cn/index.html", secret)
	h.file(t, "www/email/index.html", secret)
	h.file(t, "www/any/index.html", secret)
	https, _ := h.serve(t, `
localhost:HTTPS {
	root * DIR/www
	require /cn* {
		rule `+"`cert.subject.cn == \"alice\"`"+`
	}
	require /email* {
		rule `+"`cert.subject.email == \"alice@example.com\"`"+`
	}
	require /any* {
		rule `+"`cert.subject.cn.exists(n, n == \"alice\")`"+`
	}
	file_server
}
`)
	email := []int{1, 2, 840, 113549, 1, 9, 1}
	cn := []int{2, 5, 4, 3}
	named := func(attributes ...pkix.AttributeTypeAndValue) *holder {
		c := issue(t, h.client, func(c *x509.Certificate) { c.Subject = pkix.Name{ExtraNames: attributes} })
		h.add(c, "alice")
		return c
	}
	at := func(oid []int, v string) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: v}
	}
	for _, c := range []struct {
		who            *holder
		cn, email, any int
	}{
		{named(at(cn, "alice"), at(email, "alice@example.com")), 200, 200, 200},
		{named(at(cn, "alice"), at(cn, "mallory")), 403, 403, 200},
		{named(at(cn, "mallory"), at(cn, "alice")), 403, 403, 200},
		{named(at(email, "alice@example.com"), at(email, "mallory@example.com")), 403, 403, 403},
		{named(at(email, "mallory@example.com"), at(email, "alice@example.com")), 403, 403, 403},
		{named(at(cn, "x/CN=alice/emailAddress=alice@example.com")), 403, 403, 403},
		{named(at(cn, "mallory,CN=alice")), 403, 403, 403},
	} {
		current().poll(t.Context())
		for path, want := range map[string]int{"/cn/": c.cn, "/email/": c.email, "/any/": c.any} {
			got, err := h.try(https, attempt{
				proto: "1.1", version: tls.VersionTLS13, sni: "localhost",
				host: "localhost", target: path, who: c.who,
			})
			if err != nil || got.status != want {
				t.Errorf("%s at %s: %d %v, want %d", c.who.cert.Subject, path, got.status, err, want)
			}
		}
	}
}
