package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// BenchmarkGuardedRequest measures what a guard costs a request, with Caddy's
// server and without a network: the same site with and without it.
func BenchmarkGuardedRequest(b *testing.B) {
	h := newRig(b)
	alice := h.person(b, "alice")
	current().poll(b.Context())
	for _, c := range []struct{ name, require string }{
		{"open", ""},
		{"guarded by person", "require /guarded* {\n\t\tperson alice\n\t}"},
		{
			"guarded by rule",
			"require /guarded* {\n\t\trule `cert.subject.cn == \"alice\" && request.method == \"GET\"`\n\t}",
		},
	} {
		b.Run(c.name, func(b *testing.B) {
			https, _ := h.serve(b, "localhost:HTTPS {\n\trespond ok\n\t"+c.require+"\n}\n")
			_ = https
			app, err := caddy.ActiveContext().App("http")
			if err != nil {
				b.Fatal(err)
			}
			var server http.Handler
			for _, s := range app.(*caddyhttp.App).Servers {
				if len(s.TLSConnPolicies) > 0 {
					server = s
				}
			}
			ctx := context.WithValue(b.Context(), connKey{}, new(conn))
			state := &tls.ConnectionState{
				ServerName: "localhost", PeerCertificates: []*x509.Certificate{alice.cert},
				HandshakeComplete: true,
			}
			w := &sink{header: make(http.Header)}
			b.ReportAllocs()
			for b.Loop() {
				r, _ := http.NewRequestWithContext(ctx, "GET", "/guarded/page.txt", nil)
				r.Host, r.TLS, r.RemoteAddr, r.RequestURI = "localhost", state, "127.0.0.1:1234", "/guarded/page.txt"
				r.Header["User-Agent"] = []string{"bench"}
				clear(w.header)
				server.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
			caddy.Stop()
		})
	}
}

// sink is a response that is not read.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
