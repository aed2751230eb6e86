package front

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern"
)

// spellings are ways to write a guarded address. A server that reads one as
// the guarded address must not get past the guard with it.
func spellings(prefix string) []string {
	name := strings.TrimPrefix(prefix, "/")
	letter := fmt.Sprintf("/%%%02x%s", name[0], name[1:])
	out := []string{
		prefix, prefix + "/", prefix + "/index.html", "/" + prefix, "//" + prefix + "//", "/." + prefix,
		"/./" + prefix + "/.", "/x/.." + prefix,
		"/x/../" + prefix, "/a/b/../.." + prefix, "/../" + name, prefix + "/../" + name, prefix + "/x/..",
		"/x//../.." + prefix, prefix + "//../index.html",
		letter, "/%" + fmt.Sprintf("%02X", name[0]) + name[1:], "/%25" + fmt.Sprintf("%02x", name[0]) + name[1:],
		"/%2525" + fmt.Sprintf("%02x", name[0]) + name[1:],
		"/%u00" + fmt.Sprintf("%02x", name[0]) + name[1:], "/%2e" + prefix, "/x/%2e%2e" + prefix, "/x/.%2e" + prefix,
		"/x/%252e%252e" + prefix,
		"%2f" + name, "/%2f" + name, "/x%2f..%2f" + name, "/x/..%2f" + name, prefix + "%2f", prefix + "%2findex.html",
		`/\` + name, `\` + name, `/x\..\` + name, "/%5c" + name, "/x%5c..%5c" + name, "/x/..%5c" + name,
		prefix + "%5c", prefix + `\`,
		strings.ToUpper(prefix), strings.ToUpper(prefix[:2]) + prefix[2:],
		prefix[:len(prefix)-1] + strings.ToUpper(prefix[len(prefix)-1:]),
		prefix + ";", prefix + ";x=1", prefix + ";/x", "/;" + prefix, "/;x" + prefix, "/x;y/.." + prefix,
		"/x/..;" + prefix, "/x/..;a=b" + prefix, "/.;" + prefix,
		"/x;/.." + prefix, prefix + "%3b", prefix + "%3bx",
		prefix + ".", prefix + "./", prefix + "..", prefix + ".../", prefix + "%20", prefix + "%20/", prefix + "%2e",
		"/%20" + name, "/ " + name,
		prefix + "%00", prefix + "%00.html", "/x%00/.." + prefix, prefix + "%0a", prefix + "%0d%0a", prefix + "%09",
		prefix + "%7f",
		prefix + "?", prefix + "?x=/public", prefix + "#", prefix + "%23", prefix + "%3f", prefix + "%3fx",
		"/public?/.." + prefix, "/x#/.." + prefix,
		prefix + "%", prefix + "%2", prefix + "%zz", prefix + "%ff", prefix + "%c0%af", "/%c0%ae%c0%ae" + prefix,
		"/x/%c0%ae%c0%ae" + prefix,
		"/%ef%bc%8f" + name, "/x/%ef%bc%8e%ef%bc%8e" + prefix, "/" + name[:1] + "%e2%80%8b" + name[1:],
		"/" + name[:1] + "%c2%ad" + name[1:],
		"/%ef%bd%97" + name[1:], prefix + "::$DATA", prefix + "::$INDEX_ALLOCATION/x", prefix + ":", prefix + "~",
		prefix + "-", prefix + "x",
		"/public/../" + name, "/public/.." + prefix + "/.", "/index.html/.." + prefix, "/index.html" + "/../" + name,
	}
	return out
}

// absolute are targets that are not a path.
func absolute(port int, prefix string) []string {
	return []string{
		fmt.Sprintf("https://localhost:%d%s/", port, prefix), fmt.Sprintf("http://localhost:%d%s/", port, prefix),
		fmt.Sprintf("https://open.localhost:%d%s/", port, prefix), "https://localhost" + prefix, "https:" + prefix,
		"https:/" + prefix,
		"*", "", "localhost" + prefix,
	}
}

// impostors are all those who must not see what is alice's.
func impostors(t *testing.T, h *rig) map[string]*holder {
	now := time.Now()
	twinRoot := issue(t, nil, authority("Test Client CA"))
	twinRoot.pass = nil
	sub := issue(t, h.client, authority("Sub CA"))
	deeper := issue(t, sub, authority("Deeper CA"))
	deepest := issue(t, deeper, authority("Deepest CA"))
	with := func(f func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) { person("alice")(c); f(c) }
	}
	known := func(c *holder) *holder { h.add(c, "alice"); return c }
	out := map[string]*holder{
		"no certificate":       nil,
		"another person":       h.person(t, "bob"),
		"a twin of the issuer": known(issue(t, twinRoot, person("alice"))),
		"oneself":              known(issue(t, nil, person("alice"))),
		"the server CA":        known(issue(t, h.server, person("alice"))),
		"the root itself":      known(issue(t, h.root, person("alice"))),
		"an expired certificate": known(issue(t, h.client, with(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour)
		}))),
		"a certificate from tomorrow": known(issue(t, h.client, with(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(time.Hour), now.Add(2*time.Hour)
		}))),
		"a server's certificate": known(issue(t, h.client, with(func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}))),
		"too long a chain":             known(issue(t, deepest, person("alice"))),
		"a certificate never issued":   issue(t, h.client, person("alice")),
		"a certificate used as issuer": known(issue(t, issue(t, h.client, person("alice")), person("alice"))),
		"the client CA's certificate":  known(h.client),
	}
	out["a twin of the issuer"].pass = []*x509.Certificate{twinRoot.cert}
	out["too long a chain"].pass = []*x509.Certificate{deepest.cert, deeper.cert, sub.cert}
	out["the server CA"].pass = []*x509.Certificate{h.server.cert}
	revoked := known(issue(t, h.client, person("alice")))
	suspended := h.person(t, "carol")
	disabled := known(issue(t, h.client, person("alice")))
	h.change(func() {
		h.credentials[revoked.cert.SerialNumber.Text(16)] = postern.Credential{
			Person: "alice",
			Status: postern.CredentialRevoked,
		}
		h.credentials[disabled.cert.SerialNumber.Text(16)] = postern.Credential{
			Person: "alice",
			Status: postern.CredentialDisabled,
		}
		h.persons["carol"] = postern.Person{Name: "carol", Email: "carol@example.com", Status: postern.PersonSuspended}
	})
	out["a revoked certificate"], out["a suspended person"], out["a disabled certificate"] = revoked, suspended,
		disabled
	return out
}

const attackedSites = `
localhost:HTTPS {
	root * DIR/www
	require /wp-admin* /wp-login.php* {
		person alice carol
	}
	file_server
}
proxy.localhost:HTTPS {
	reverse_proxy APP
	require /wp-admin* /wp-login.php* {
		person alice carol
	}
}
open.localhost:HTTPS {
	root * DIR/open
	file_server
}
http://localhost:HTTP, http://proxy.localhost:HTTP {
	reverse_proxy APP
	require /wp-admin* /wp-login.php* {
		person alice carol
	}
}
`

func attackedRig(t *testing.T) (h *rig, https, http int) {
	h = newRig(t)
	h.file(t, "www/index.html", public)
	h.file(t, "www/public/index.html", public)
	h.file(t, "www/wp-login.php", secret)
	for _, f := range []string{"www/wp-admin/index.html", "www/wp-adminx", "www/wp-admin-old/x", "www/wp-admin/x/y"} {
		h.file(t, f, secret)
	}
	h.file(t, "open/index.html", public)
	https, http = h.serve(t, strings.ReplaceAll(attackedSites, "APP", newLaxApp(t).URL))
	return h, https, http
}

// sweep makes attempts in parallel and reports those that got a guarded byte.
func (h *rig) sweep(t *testing.T, port int, attempts []attempt, check func(attempt, answer, error) string) {
	t.Helper()
	work := make(chan attempt)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for a := range work {
				got, err := h.try(port, a)
				if wrong := check(a, got, err); wrong != "" {
					t.Errorf("%s: HTTP/%s TLS %x host %q SNI %q %q %v: %d %.80q %v", wrong, a.proto, a.version, a.host,
						a.sni, a.target, a.headers, got.status, got.body, err)
				}
			}
		})
	}
	for _, a := range attempts {
		work <- a
	}
	close(work)
	wg.Wait()
}

func leaks(_ attempt, got answer, _ error) string {
	if strings.Contains(got.body, secret) {
		return "leaked"
	}
	return ""
}

type transport struct {
	proto   string
	version uint16
}

var transports = []transport{
	{"1.0", tls.VersionTLS12},
	{"1.0", tls.VersionTLS13},
	{"1.1", tls.VersionTLS12},
	{"1.1", tls.VersionTLS13},
	{"2", tls.VersionTLS12},
	{"2", tls.VersionTLS13},
}
