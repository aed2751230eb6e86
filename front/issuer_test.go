package front

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestOwnCAIssues serves sites whose certificates are asked of Postern's CA in
// every way there is. No other CA is made meanwhile.
func TestOwnCAIssues(t *testing.T) {
	for _, c := range []struct{ name, global, host, directive string }{
		{"tls internal", "", "www.example.com", "tls internal"},
		{"issuer postern", "", "intranet.example.com", "tls {\n\t\tissuer postern\n\t}"},
		{"cert_issuer postern", "cert_issuer postern", "all.example.com", ""},
		{"local_certs", "local_certs", "local.example.com", ""},
		{"skip_install_trust", "skip_install_trust", "skip.example.com", "tls internal"},
		{"a name of a private network", "", "nas.lan", ""},
		{"a reserved name", "", "www.example.test", ""},
		{"a name of one label", "", "grafana", ""},
		{"a name below home.arpa", "", "nas.home.arpa", ""},
		{"an address", "", "127.0.0.1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newRig(t)
			h.global = c.global
			https, _ := h.serve(t, fmt.Sprintf("%s:HTTPS {\n\t%s\n\trespond ok\n}\n", c.host, c.directive))
			h.await(t, https, c.host)
			if _, err := os.Stat(filepath.Join(h.dir, "caddy", "pki")); err == nil {
				t.Error("Caddy's own CA was made")
			}
		})
	}
}

// TestAnotherIssuerStays leaves alone what names another CA.
func TestAnotherIssuerStays(t *testing.T) {
	newRig(t)
	config, _, err := Adapt([]byte("nas.lan {\n\ttls {\n\t\tissuer acme https://ca.lan/dir\n\t}\n}\n"), "Caddyfile")
	if err != nil || strings.Contains(string(config), `"module":"postern"`) ||
		!strings.Contains(string(config), "https://ca.lan/dir") {
		t.Errorf("%v %s", err, config)
	}
}

// TestCaddysCAIsRefused holds what would need Caddy's own CA.
func TestCaddysCAIsRefused(t *testing.T) {
	newRig(t)
	for name, text := range map[string]string{
		"a lifetime":  "www.example.com {\n\ttls {\n\t\tissuer internal {\n\t\t\tlifetime 1h\n\t\t}\n\t}\n}\n",
		"another CA":  "{\n\tpki {\n\t\tca other {\n\t\t\tname Other\n\t\t}\n\t}\n}\nwww.example.com {\n}\n",
		"a CA's name": "{\n\tpki {\n\t\tca {\n\t\t\tname Other\n\t\t}\n\t}\n}\nwww.example.com {\n}\n",
		"its root": "www.example.com {\n\ttls {\n\t\tclient_auth {\n\t\t\ttrust_pool pki_root local\n\t\t}\n" +
			"\t}\n}\n",
		"its ACME":       "www.example.com {\n\tacme_server\n}\n",
		"a block for us": "www.example.com {\n\ttls {\n\t\tissuer postern {\n\t\t\tlifetime 1h\n\t\t}\n\t}\n}\n",
		"a word for us":  "www.example.com {\n\ttls {\n\t\tissuer postern more\n\t}\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Adapt([]byte(text), "Caddyfile")
			if err == nil || postern.CodeOf(err) != postern.Invalid {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestCaddysCAWithoutOurs leaves it to Caddy where Postern has no CA.
func TestCaddysCAWithoutOurs(t *testing.T) {
	newRig(t, func(r *Runtime) { r.Issue = nil })
	config, _, err := Adapt([]byte("www.example.com {\n\ttls internal\n}\n"), "Caddyfile")
	if err != nil || !strings.Contains(string(config), `"module":"internal"`) ||
		!strings.Contains(string(config), `"install_trust":false`) {
		t.Errorf("%v %s", err, config)
	}
}
