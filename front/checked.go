package front

import (
	"encoding/json"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern/gate"
)

func init() { caddy.RegisterModule(Checked{}) }

// Checked holds a handler of a guarded site and lets a request through to it
// only with the path that the guard has judged. A path that was rewritten
// since is judged anew, whoever rewrote it.
type Checked struct {
	HandlerRaw json.RawMessage `json:"handle" caddy:"namespace=http.handlers inline_key=handler"`
	Proxy      bool            `json:"proxy,omitempty"`  // the handler passes requests on, and their headers
	Errors     bool            `json:"errors,omitempty"` // it stands in error routes, where no guard came first

	handler caddyhttp.MiddlewareHandler
}

// CaddyModule returns the Caddy module information.
func (Checked) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.postern_checked", New: func() caddy.Module { return new(Checked) }}
}

// Provision loads the handler.
func (c *Checked) Provision(ctx caddy.Context) error {
	m, err := ctx.LoadModule(c, "HandlerRaw")
	if err != nil {
		return err
	}
	c.handler = m.(caddyhttp.MiddlewareHandler)
	return nil
}

// ServeHTTP judges the path if it has changed.
func (c *Checked) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	p := passageOf(r)
	switch {
	case p == nil && c.Errors:
		var readings gate.Readings
		if g := guarded.cover(r, &readings); g != nil {
			g.answer(w, r, refusal{status: http.StatusForbidden, reason: gate.NoneShown})
			return nil
		}
	case p != nil && !p.unchanged(r.URL) && !p.judge(w, r):
		return nil
	}
	if c.Proxy && p != nil && p.identity != nil {
		p.identity.setHeaders(r.Header)
	}
	return c.handler.ServeHTTP(w, r, next)
}

// Unwrap returns the handler.
func (c *Checked) Unwrap() caddyhttp.MiddlewareHandler { return c.handler }
