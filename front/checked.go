package front

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"github.com/postern-project/postern/gate"
)

func init() { caddy.RegisterModule(Checked{}) }

// Checked holds a handler of a guarded site and lets a request through to it
// only with the path that the guard has judged. A path that any handler has rewritten
// since is judged again, and so is what the handler itself makes of it: a proxy that
// rewrites, a file server that shows an index page.
type Checked struct {
	HandlerRaw json.RawMessage `json:"handle" caddy:"namespace=http.handlers inline_key=handler"`
	// the handler passes requests on, and their headers
	Proxy bool `json:"proxy,omitempty"`
	// what it does to a request before it passes it on
	Rewrite *rewrite.Rewrite `json:"rewrite,omitempty"`
	// finds the index page that it serves for a directory
	IndexRaw json.RawMessage `json:"index,omitempty" caddy:"namespace=http.matchers inline_key=matcher"`

	handler caddyhttp.MiddlewareHandler
	index   caddyhttp.RequestMatcherWithError
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
	if c.Rewrite != nil {
		if err := c.Rewrite.Provision(ctx); err != nil {
			return err
		}
	}
	if c.IndexRaw == nil {
		return nil
	}
	if m, err = ctx.LoadModule(c, "IndexRaw"); err != nil {
		return err
	}
	c.index = m.(caddyhttp.RequestMatcherWithError)
	return nil
}

// ServeHTTP judges the path if it has changed, and what the handler makes of
// it.
func (c *Checked) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	p := stateOf(r)
	if p != nil && !p.unchanged(r) && !p.judge(w, r) {
		return nil
	}
	if p == nil && coveredHere(w, r) {
		return nil
	}
	if reached, err := c.reached(r, p); err != nil {
		return err
	} else if reached != nil && (p != nil && !p.judgeAs(w, r, reached) || p == nil && coveredHere(w, reached)) {
		return nil
	}
	if c.Proxy && p != nil {
		p.setHeaders(r.Header)
	}
	if p != nil && len(p.passed) > 0 {
		defer p.watch(w, r).end()
	}
	return c.handler.ServeHTTP(w, r, next)
}

// coveredHere refuses a request that no guard has seen if one would cover it:
// in error routes and in named ones, to which other sites lead too.
func coveredHere(w http.ResponseWriter, r *http.Request) bool {
	var readings gate.Readings
	g := guarded.cover(r, &readings)
	if g != nil {
		g.answer(w, r, refusal{status: http.StatusForbidden, reason: gate.NoneShown})
	}
	return g != nil
}

// reached returns the request as the handler will make it, or nil if it is the
// same.
func (c *Checked) reached(r *http.Request, p *requestState) (*http.Request, error) {
	if c.Rewrite == nil && (c.index == nil || p != nil && !p.guard.byPath) {
		return nil, nil
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return nil, caddyhttp.Error(http.StatusInternalServerError, nil)
	}
	reached := r.WithContext(r.Context())
	u := *r.URL
	reached.URL = &u
	if c.Rewrite != nil {
		if !c.Rewrite.Rewrite(reached, repl) {
			return nil, nil
		}
		return reached, nil
	}
	found, err := c.index.MatchWithError(r)
	if !found || err != nil {
		return nil, err
	}
	name, _ := repl.GetString("http.matchers.file.relative")
	u.Path, u.RawPath = "/"+strings.TrimPrefix(name, "/"), ""
	return reached, nil
}

// Unwrap returns the handler.
func (c *Checked) Unwrap() caddyhttp.MiddlewareHandler { return c.handler }
