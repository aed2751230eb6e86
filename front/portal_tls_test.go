package front

import (
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestThePortalsCertificate reads a tls directive in the portal's block, as it would
// stand in a site.
func TestThePortalsCertificate(t *testing.T) {
	newRig(t)
	const portal = "{\n\tpostern {\n\t\tportal id.example.com {\n\t\t\tname \"Example\"\n\t\t\t%\n" +
		"\t\t\tadmins staff\n\t\t}\n\t}\n}\n"
	for directive, want := range map[string]string{
		"tls {\n\t\t\t\tissuer postern\n\t\t\t}": `"issuers":[{"module":"postern"}],"subjects":["id.example.com"]`,
		"tls internal":                           `"issuers":[{"module":"postern"}],"subjects":["id.example.com"]`,
		"tls /etc/a.pem \"/etc/a key.pem\"":      `"certificate":"/etc/a.pem","key":"/etc/a key.pem"`,
		"tls {\n\t\t\t\tissuer acme {\n\t\t\t\t\tdir https://ca.lan/dir\n" +
			"\t\t\t\t}\n\t\t\t}": `"ca":"https://ca.lan/dir","module":"postern_acme"`,
		"tls dan@example.com": `"email":"dan@example.com","module":"postern_acme"`,
	} {
		config, _, err := Adapt([]byte(strings.Replace(portal, "%", directive, 1)), "Caddyfile")
		if err != nil || !strings.Contains(string(config), want) || !strings.Contains(string(config), `"staff"`) {
			t.Errorf("%s: %v\n%s", directive, err, indent(config))
		}
	}
	for text, problem := range map[string]string{
		strings.Replace(portal, "%", "tls internal\n\t\t\ttls internal",
			1): "there is one tls",
		strings.Replace(portal, "%", "tls internal", 1) +
			"id.example.com {\n\tpostern_services\n}\n": "without a site of its own",
		strings.Replace(portal, "%", "tls {\n\t\t\t\tno_such_word\n\t\t\t}", 1): "no_such_word",
	} {
		if _, _, err := Adapt([]byte(text), "Caddyfile"); err == nil || !strings.Contains(err.Error(), problem) ||
			postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%s: %v", text, err)
		}
	}
}
