package front

import (
	"maps"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/fastcgi"
)

func init() { caddy.RegisterModule(FastCGI{}) }

// FastCGI is Caddy's FastCGI transport, which also gives the application the
// variables of Apache's mod_ssl about the client's certificate.
type FastCGI struct{ fastcgi.Transport }

// CaddyModule returns the Caddy module information.
func (FastCGI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.postern_fastcgi", New: func() caddy.Module {
		return new(FastCGI)
	}}
}

// RoundTrip passes the request on.
func (f FastCGI) RoundTrip(r *http.Request) (*http.Response, error) {
	t := f.Transport
	env := make(map[string]string, len(t.EnvVars)+40)
	if p := stateOf(r); p != nil && p.identity != nil {
		maps.Copy(env, p.identity.environment(r))
	} else {
		env["SSL_CLIENT_VERIFY"] = "NONE"
	}
	maps.Copy(env, t.EnvVars)
	t.EnvVars = env
	return t.RoundTrip(r)
}

var (
	_ reverseproxy.BufferedTransport = FastCGI{}
	_ caddy.Provisioner              = (*FastCGI)(nil)
)
