package front

import (
	"net/http"
	"sort"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Services{})
	httpcaddyfile.RegisterHandlerDirective("postern_services",
		func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
			h.Next()
			if h.NextArg() {
				return nil, h.ArgErr()
			}
			return new(Services), nil
		})
	httpcaddyfile.RegisterDirectiveOrder("postern_services", httpcaddyfile.Before, "respond")
}

// Services serves the handlers of Postern's other services: portal, ACME, OTP
// validation, CRLs and OCSP. A path that none of them has goes on to the next handler.
type Services struct {
	services  []Service // longest prefix first
	httpsPort int
}

// CaddyModule returns the Caddy module information.
func (Services) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.postern_services", New: func() caddy.Module { return new(Services) }}
}

// Provision takes the services of the Runtime in use.
func (s *Services) Provision(ctx caddy.Context) error {
	s.services = append(s.services, current().mounts().services...)
	sort.SliceStable(s.services, func(i, j int) bool { return len(s.services[i].Prefix) > len(s.services[j].Prefix) })
	s.httpsPort = httpsPort(ctx)
	return nil
}

// ServeHTTP serves the request, or redirects it to HTTPS where plain HTTP is
// not enough.
func (s *Services) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	for _, service := range s.services {
		if !strings.HasPrefix(r.URL.Path, service.Prefix) {
			continue
		}
		if r.TLS == nil && !service.PlainHTTP {
			(&Guard{httpsPort: s.httpsPort, live: current()}).redirect(w, r)
			return nil
		}
		service.Handler.ServeHTTP(w, r)
		return nil
	}
	return next.ServeHTTP(w, r)
}
