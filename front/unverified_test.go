package front

import (
	"strings"
	"testing"

	"github.com/postern-project/postern"
)

// TestUnverifiedCertificatesAreNotPassedOn refuses configurations that would pass on the
// fields of a certificate that is not verified.
func TestUnverifiedCertificatesAreNotPassedOn(t *testing.T) {
	newRig(t)
	const demanding = "b.localhost {\n\ttls {\n\t\tclient_auth {\n\t\t\tmode require_and_verify\n" +
		"\t\t\ttrust_pool file ca.pem\n\t\t}\n\t}\n" +
		"\trespond {tls_client_subject}\n}\n"
	for name, c := range map[string]struct {
		text string
		fine bool
	}{
		"to a proxied application": {text: "a.localhost {\n\trequire /x*\n\treverse_proxy 127.0.0.1:1 {\n" +
			"\t\theader_up X-User {tls_client_subject}\n\t}\n}\n"},
		"by its long name": {text: "a.localhost {\n\trequire /x*\n" +
			"\trespond {http.request.tls.client.san.emails}\n}\n"},
		"to a FastCGI program": {text: "a.localhost {\n\trequire /x*\n\tphp_fastcgi 127.0.0.1:1 {\n" +
			"\t\tenv SSL_CLIENT_S_DN {tls_client_subject}\n\t}\n}\n"},
		"in a matcher": {text: "a.localhost {\n\trequire /x*\n" +
			"\t@me expression `{tls_client_subject} == 'CN=me'`\n\trespond @me hello\n}\n"},
		"in an error's answer": {text: "a.localhost {\n\trequire /x*\n\thandle_errors {\n" +
			"\t\trespond {tls_client_serial}\n\t}\n}\n"},
		"in a named route": {text: "&(r) {\n\trespond {tls_client_serial}\n}\na.localhost {\n" +
			"\trequire /x*\n\tinvoke r\n}\n"},
		"on another site": {text: "a.localhost {\n\trequire /x*\n}\nb.localhost {\n" +
			"\trespond {tls_client_subject}\n}\n"},
		"beside client_auth": {text: "a.localhost {\n\trequire /x*\n\trespond {tls_client_subject}\n}\n" +
			demanding},
		"of client_auth itself": {text: "a.localhost {\n\trequire /x*\n}\n" + demanding, fine: true},
		"where no certificate is": {text: "a.localhost {\n\trequire /x* {\n\t\tanyone\n\t\trule false\n\t}\n" +
			"\trespond {tls_client_subject}\n}\n", fine: true},
		"where there is no guard": {text: demanding, fine: true},
		"who passed, by a guard": {
			text: "a.localhost {\n\trequire /x*\n\trespond {http.auth.user.id}\n}\n",
			fine: true,
		},
		"of the connection, no more": {text: "a.localhost {\n\trequire /x*\n\trespond {tls_version}\n}\n", fine: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Adapt([]byte(c.text), "Caddyfile")
			switch {
			case c.fine && err != nil:
				t.Error(err)
			case !c.fine && (err == nil || postern.CodeOf(err) != postern.Invalid):
				t.Errorf("it is accepted: %v", err)
			case !c.fine && !strings.Contains(postern.HintOf(err), "Client-Cert"):
				t.Errorf("no hint at what to use: %v", err)
			}
		})
	}
}
