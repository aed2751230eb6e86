package front

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

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
	Proxy      bool            `json:"proxy,omitempty"`                                                    // the handler passes requests on, and their headers
	Errors     bool            `json:"errors,omitempty"`                                                   // it stands in error routes, where no guard came first
	IndexRaw   json.RawMessage `json:"index,omitempty" caddy:"namespace=http.matchers inline_key=matcher"` // finds the index page that it serves for a directory

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
	if c.IndexRaw == nil {
		return nil
	}
	if m, err = ctx.LoadModule(c, "IndexRaw"); err != nil {
		return err
	}
	c.index = m.(caddyhttp.RequestMatcherWithError)
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
	case p != nil && c.index != nil && p.guard.byPath:
		if passes, err := c.indexPasses(w, r, p); !passes || err != nil {
			return err
		}
	}
	if c.Proxy && p != nil && p.identity != nil {
		p.identity.setHeaders(r.Header)
	}
	return c.handler.ServeHTTP(w, r, next)
}

// indexPasses judges the index page that a file server would show, as if it
// had been asked for by its name.
func (c *Checked) indexPasses(w http.ResponseWriter, r *http.Request, p *passage) (bool, error) {
	found, err := c.index.MatchWithError(r)
	if !found || err != nil {
		return err == nil, err
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false, caddyhttp.Error(http.StatusInternalServerError, nil)
	}
	name, _ := repl.GetString("http.matchers.file.relative")
	page := r.WithContext(r.Context())
	page.URL = &url.URL{Path: "/" + strings.TrimPrefix(name, "/"), RawQuery: r.URL.RawQuery}
	passes := p.judge(w, page)
	p.path, p.rawPath = r.URL.Path, r.URL.RawPath
	return passes, nil
}

// Unwrap returns the handler.
func (c *Checked) Unwrap() caddyhttp.MiddlewareHandler { return c.handler }
