package front

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const rewritingSite = `
&(shared) {
	file_server
}
localhost:HTTPS {
	root * DIR/www
	require /wp-admin* /blog/index.html /hidden.txt ~/private\.html$ {
		person alice
	}
	require / {
		anyone
		rule "!request.path.matches('(?i)/never[.]html$') && !request.query.contains('never')"
	}

	rewrite /alias /wp-admin/index.html
	rewrite /wp-admin/moved* /index.html
	uri /strip/* strip_prefix /strip
	uri /swap/* replace swap wp-admin
	handle_path /app/* {
		file_server
	}
	handle /named/* {
		uri strip_prefix /named
		invoke shared
	}
	handle /nested/* {
		route {
			rewrite * /wp-admin/index.html
			file_server
		}
	}
	handle /accel/* {
		reverse_proxy ACCEL {
			@accel header X-Accel-Redirect *
			handle_response @accel {
				rewrite * {rp.header.X-Accel-Redirect}
				file_server
			}
		}
	}
	handle /try/* {
		try_files /nothing /wp-admin/index.html
		file_server
	}
	handle /mapped/* {
		rewrite * {query.to}
		file_server
	}
	handle /proxied/* {
		uri strip_prefix /proxied
		reverse_proxy APP
	}
	handle /upstream/* {
		reverse_proxy APP {
			rewrite /wp-admin/
		}
	}
	handle /relative/* {
		reverse_proxy APP {
			rewrite {query.to}
		}
	}
	handle /asked/* {
		forward_auth APP {
			uri /wp-admin/
		}
		respond "public"
	}
	handle /query/* {
		rewrite /query/x /query/x?page=never
		respond "SECRET-BYTES"
	}
	handle /error/* {
		error "teapot" 418
	}
	handle {
		file_server {
			index private.html never.html index.html
		}
	}
	handle_errors 410 {
		root * DIR/www
		rewrite * /wp-admin/index.html
		invoke shared
	}
	handle_errors 418 {
		rewrite * /wp-admin/index.html
		file_server
	}
	handle_errors {
		file_server
	}
}
localhost:HTTPS/elsewhere* {
	error 410
}
`

// TestRewrittenPaths reaches for guarded files through every way that Caddy has of changing
// a path, before and after the guard.
func TestRewrittenPaths(t *testing.T) {
	h := newRig(t)
	h.file(t, "www/index.html", public)
	h.file(t, "www/wp-admin/index.html", secret)
	h.file(t, "www/wp-admin/moved.html", secret)
	h.file(t, "www/blog/index.html", secret)
	h.file(t, "www/hidden.txt", secret)
	h.file(t, "www/private/private.html", secret)
	h.file(t, "www/never/never.html", secret)
	accel := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Accel-Redirect", "/wp-admin/index.html")
	}))
	t.Cleanup(accel.Close)
	https, _ := h.serve(t, strings.NewReplacer("ACCEL", accel.URL, "APP", newLaxApp(t).URL).Replace(rewritingSite))
	alice, bob := h.person(t, "alice"), h.person(t, "bob")
	for target, open := range map[string]bool{
		"/alias":                               true,
		"/wp-admin/moved.html":                 false, // guarded as asked for; alice gets the public page
		"/strip/wp-admin/index.html":           true,
		"/strip/strip/wp-admin/index.html":     false,
		"/swap/index.html":                     true,
		"/app/wp-admin/index.html":             true,
		"/app/hidden.txt":                      true,
		"/app/x/../hidden.txt":                 true,
		"/app/HIDDEN.TXT":                      false,
		"/named/wp-admin/index.html":           true,
		"/named/hidden.txt":                    true,
		"/nested/x":                            true,
		"/accel/x":                             true,
		"/try/x":                               true,
		"/mapped/?to=/hidden.txt":              true,
		"/mapped/?to=/x/..%2fhidden.txt":       true,
		"/mapped/?to=/blog/":                   true,
		"/mapped/?to=/%2568idden.txt":          true, // the rewrite decodes once more
		"/proxied/wp-admin/":                   true,
		"/proxied/%2577p-admin/":               false,
		"/proxied/x/..;/wp-admin/":             false,
		"/blog/":                               true,
		"/blog":                                false, // sent on to /blog/
		"/private/private.html":                true,
		"/private/":                            true, // the index page that it shows
		"/private//":                           true,
		"/never/":                              false, // its index page is for no person
		"/never/never.html":                    false,
		"/upstream/x":                          true,
		"/relative/?to=/wp-admin/":             true,
		"/relative/?to=//wp-admin":             true,
		"/relative/?to=/x/../%2577p-admin/":    true,  // the rewrite decodes once more
		"/relative/?to=/x/..;/wp-admin/":       false, // two servers could read it differently
		"/asked/x":                             false, // the proxy would be asked for a guarded path
		"/query/x":                             false,
		"/error/x":                             true,
		"/elsewhere/x":                         false, // another site's error, which no guard has seen
		"/wp-admin/nothing-here":               false,
		"/wp-admin/index.html/":                false,
		"/index.html":                          false,
		"/nothing-here":                        false,
		"/nothing-here/../wp-admin/index.html": true,
	} {
		for name, who := range map[string]*holder{"no certificate": nil, "bob": bob, "alice": alice} {
			for _, tr := range []transport{{"1.1", tls.VersionTLS12}, {"2", tls.VersionTLS13}} {
				got, err := h.try(https, attempt{
					proto: tr.proto, version: tr.version, sni: "localhost",
					host: "localhost", target: target, who: who,
				})
				if err != nil {
					t.Fatal(err)
				}
				if opened := strings.Contains(got.body, secret); opened != (open && who == alice) {
					t.Errorf("%s for %s over HTTP/%s: %d %q", target, name, tr.proto, got.status, got.body)
				}
			}
		}
	}
	for _, header := range []string{"X-Original-URL", "x-rewrite-url", "X_Original_URL", "X-Rewrite-URI"} {
		got, err := h.try(https, attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
			target: "/proxied/x", headers: []string{header + ": /wp-admin/"},
		})
		if err != nil || got.status != 200 || strings.Contains(got.body, "/wp-admin/") {
			t.Errorf("%s reaches the application: %v %d %q", header, err, got.status, got.body)
		}
	}
	for _, method := range []string{"POST", "PUT", "OPTIONS", "HEAD", "PROPFIND", strings.Repeat("X", 40), "CONNECT"} {
		got, err := h.try(https, attempt{
			proto: "1.1", version: tls.VersionTLS13, sni: "localhost", host: "localhost",
			target: "/hidden.txt", method: method,
		})
		if err == nil && (strings.Contains(got.body, secret) || got.status == 200) {
			t.Errorf("%s: %d %q", method, got.status, got.body)
		}
	}
}

// TestForgedIdentities sends every header from which an application could take an
// identity, to a guarded and to an open site.
func TestForgedIdentities(t *testing.T) {
	h, https, plain := attackedRig(t)
	alice := h.person(t, "alice")
	forged := []string{
		"Client-Cert: :Zm9yZ2Vk:", "client-cert: :Zm9yZ2Vk:", "Client-Cert-Chain: :Zm9yZ2Vk:", "CLIENT_CERT: forged",
		"Client_Cert: forged",
		"Postern-Person: forged", "postern_person: forged", "Postern.Person: forged", "POSTERN-EMAIL: forged",
		"X-Postern-Person: forged",
		"Postern-Anything-New: forged", "SSL-Client-Verify: forged", "SSL_CLIENT_S_DN_Email: forged",
		"Ssl-Client-S-Dn: forged",
		"X-SSL-Client-Verify: forged", "X_SSL_Client_Verify: forged", "X-SSL-Client-S-DN: forged",
		"X-SSL-Cert: forged", "X-Client-Cert: forged",
		"X-Client-Verify: forged", "X-Forwarded-Client-Cert: forged", "X-Forwarded-Tls-Client-Cert: forged",
		"Remote-User: forged", "Remote_User: forged",
		"X-Remote-User: forged",
	}
	for _, tr := range transports {
		for _, c := range []struct {
			name, target string
			who          *holder
		}{
			{"public, without a certificate", "/", nil},
			{"public, by alice", "/", alice},
			{"guarded, by alice", "/wp-admin/", alice},
		} {
			got, err := h.try(https, attempt{
				proto: tr.proto, version: tr.version, sni: "proxy.localhost",
				host: "proxy.localhost", target: c.target, who: c.who, headers: forged,
			})
			if err != nil || got.status != 200 || strings.Contains(got.body, "forged") ||
				strings.Contains(got.body, "Zm9yZ2Vk") {
				t.Errorf("%s: HTTP/%s: %d %s %v", c.name, tr.proto, got.status, got.body, err)
			}
			again, err := h.try(https, attempt{
				proto: "1.1", version: tr.version, sni: "proxy.localhost",
				host: "proxy.localhost", target: c.target, who: c.who,
				headers: []string{"Connection: postern-person, Client-Cert"},
			})
			if err != nil || strings.Contains(again.body, "Postern-Person: alice") != (c.target == "/wp-admin/") {
				t.Errorf("%s: the identity can be dropped: %s %v", c.name, again.body, err)
			}
			sent := strings.Contains(got.body, "Postern-Person: alice") && strings.Contains(got.body,
				"Client-Cert: :MII")
			if sent != (c.target == "/wp-admin/") {
				t.Errorf("%s: the application got: %s", c.name, got.body)
			}
		}
	}
	got, err := h.try(plain, attempt{
		proto: "1.1", host: fmt.Sprintf("proxy.localhost:%d", plain), target: "/",
		headers: forged,
	})
	if err != nil || got.status != 200 || strings.Contains(got.body, "forged") {
		t.Errorf("plain HTTP: %d %s %v", got.status, got.body, err)
	}
}

// TestConfigurationsThatWouldNotGuard are refused when they are loaded.
func TestConfigurationsThatWouldNotGuard(t *testing.T) {
	h := newRig(t)
	for name, c := range map[string]struct{ text, want string }{
		"in a handle block": {"localhost {\n\thandle /x/* {\n\t\trequire /x*\n\t}\n}", "top of a site"},
		"in a named route":  {"&(r) {\n\trequire /x*\n}\nlocalhost {\n\tinvoke r\n}", "top of a site"},
		"a mistake in a rule": {"localhost {\n\trequire /x* {\n\t\tperson a\n\t\trule `cert.subjct.cn == \"x\"`\n" +
			"\t}\n}", "Caddyfile:4: rule, line 1, column 5"},
		"over two lines": {
			"localhost {\n\trequire /x* {\n\t\trule `true &&\n\t\t\tcrt == \"x\"`\n\t}\n}",
			"Caddyfile:4: rule, line 2, column 4",
		},
		"two words":       {"localhost {\n\trequire /x* {\n\t\trule true false\n\t}\n}", "backquotes"},
		"an encoded path": {"localhost {\n\trequire /x%20y\n}", "decoded"},
		"a relative path": {"localhost {\n\trequire wp-admin\n}", "starts with /"},
		"an unknown word": {"localhost {\n\trequire /x {\n\t\tpersons a\n\t}\n}", "knows person"},
		"a status to hide by": {
			"localhost {\n\trequire /x {\n\t\tstatus 404\n\t}\n}",
			"for a guard that asks for no certificate",
		},
		"a status of success": {
			"localhost {\n\trequire /x {\n\t\tanyone\n\t\trule false\n\t\tstatus 200\n\t}\n}",
			"not the status of an error",
		},
		"a depth of nothing": {"localhost {\n\trequire /x {\n\t\tdepth 0\n\t}\n}", "not a depth"},
		"beside client_auth": {"localhost {\n\ttls {\n\t\tclient_auth {\n\t\t\tmode require\n\t\t}\n\t}\n" +
			"\trequire /x\n}", "client_auth"},
		"an unknown option": {"{\n\tpostern {\n\t\tportall x\n\t}\n}\nlocalhost {\n}", "postern knows mail, portal"},
	} {
		if _, _, err := Adapt([]byte(c.text), "Caddyfile"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	for name, c := range map[string]struct{ text, want string }{
		"no such CA":      {"localhost:HTTPS {\n\trequire /x {\n\t\ttrust DIR/none.pem\n\t}\n}", "none.pem"},
		"no CA in the CA": {"localhost:HTTPS {\n\trequire /x {\n\t\ttrust DIR/empty\n\t}\n}", "no certificate"},
		"no list of a CA": {"localhost:HTTPS {\n\trequire /x {\n\t\tcrl DIR/empty\n\t}\n}", "revocation list"},
	} {
		h.file(t, "empty", "")
		config, _, err := Adapt([]byte("{\n\tadmin off\n\tlog {\n\t\toutput discard\n\t}\n}\n"+
			strings.NewReplacer("DIR", h.dir, "HTTPS", "1").Replace(c.text)), "Caddyfile")
		if err != nil {
			t.Fatal(err)
		}
		if err := Load(config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestAnUnpreparedGuardDoesNotLoad loads a require directive that no adapter of
// ours has put in place.
func TestAnUnpreparedGuardDoesNotLoad(t *testing.T) {
	err := Load(
		[]byte(
			`{"admin":{"disabled":true},"logging":{"logs":{"default":{"writer":{"output":"discard"}}}},` +
				`"apps":{"http":{"servers":{"x":{"listen":["127.0.0.1:0"],` +
				`"routes":[{"handle":[{"handler":"postern_require","paths":["/"]}]}]}}}}}`))
	if err == nil || !strings.Contains(err.Error(), `adapter "postern"`) {
		t.Errorf("it loads: %v", err)
	}
}
