package front

import (
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestClientAuthBesideAGuardHolds asks for a site whose certificates Caddy
// itself demands on connections that were made for a guarded site.
func TestClientAuthBesideAGuardHolds(t *testing.T) {
	h := newRig(t)
	h.file(t, "client.pem", string(h.client.pem()))
	https, _ := h.serve(t, `
a.localhost:HTTPS {
	require /x*
	respond open
}
b.localhost:HTTPS {
	tls {
		client_auth {
			mode require_and_verify
			trust_pool file DIR/client.pem
		}
	}
	respond secret
}
`)
	for name, who := range map[string]*holder{"no certificate": nil, "a self-made one": issue(t, nil, person("dan"))} {
		for _, sni := range []string{"a.localhost", ""} {
			t.Run(fmt.Sprintf("%s, handshake for %q", name, sni), func(t *testing.T) {
				config := h.clientConfig(who)
				config.ServerName, config.InsecureSkipVerify = sni, true
				c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", https), config)
				if err != nil {
					return // refused in the handshake
				}
				defer c.Close()
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: b.localhost\r\nConnection: close\r\n\r\n")
				if got, _ := io.ReadAll(c); strings.Contains(string(got), "secret") {
					t.Errorf("it is answered: %s", got)
				}
			})
		}
	}
}
