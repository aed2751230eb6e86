package front

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
	"golang.org/x/net/http/httpguts"
)

// HeaderUp is a header that a guard sets for the application, about the person who signed
// in. It is removed from clients' requests, on every site of the configuration.
type HeaderUp struct {
	Name  string `json:"name"`  // in its canonical form
	Value string `json:"value"` // see [gate.CompileValue]
}

// headerUp is a compiled HeaderUp.
type headerUp struct {
	name  string
	value *gate.Value
}

// parseHeaderUp reads "header_up NAME `CEL`".
func (r *Require) parseHeaderUp(d *caddyfile.Dispenser) error {
	var h HeaderUp
	if !d.NextArg() {
		return d.ArgErr()
	}
	h.Name = http.CanonicalHeaderKey(d.Val())
	if !d.NextArg() {
		return d.ArgErr()
	}
	h.Value = d.Val()
	token := d.Token()
	if d.NextArg() {
		return d.Err("the value of a header is one expression: put it between backquotes")
	}
	if err := checkHeaderUp(h.Name); err != nil {
		return d.WrapErr(err)
	}
	if _, err := gate.CompileValue(h.Value); err != nil {
		return inFile(token, err)
	}
	if slices.ContainsFunc(r.HeaderUp, func(x HeaderUp) bool { return fold(x.Name) == fold(h.Name) }) {
		return d.Errf("%s has a value already", h.Name)
	}
	r.HeaderUp = append(r.HeaderUp, h)
	return nil
}

// requestHeaders are headers that clients send to servers and proxies, folded; a "*"
// stands for any end. If a guard set one, no client could send it any more.
var requestHeaders = []string{
	"accept*", "access-control-*", "authorization", "cache-control", "connection", "content-*", "cookie", "date",
	"early-data", "expect",
	"forwarded", "from", "host", "http2-settings", "idempotency-key", "if-*", "keep-alive", "last-event-id",
	"max-forwards", "origin",
	"pragma", "prefer", "priority", "proxy-*", "range", "referer", "sec-*", "te", "trailer", "transfer-encoding",
	"upgrade", "user-agent",
	"via", "x-csrf-token", "x-forwarded-*", "x-http-method*", "x-method-override", "x-original-ur*", "x-real-ip",
	"x-requested-with",
	"x-rewrite-ur*",
}

// ownHeaders are those that Postern sets by itself.
var ownHeaders = []string{"client-cert", "client-cert-chain", "postern-*"}

// checkHeaderUp refuses names of headers that a guard cannot set.
func checkHeaderUp(name string) error {
	folded := fold(name)
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return postern.Errorf(postern.Invalid, "%q is not the name of a header", name)
	case isNamed(folded, ownHeaders):
		return postern.Errorf(postern.Invalid, "Postern sets the header %s by itself", name)
	case isNamed(folded, requestHeaders):
		return postern.Errorf(postern.Invalid, "the header %s is one that clients send", name).
			WithHint("name a header of the application's own, as X-SSL-Subject")
	}
	return nil
}

// isNamed reports whether a folded name is in a list.
func isNamed(folded string, list []string) bool {
	return slices.ContainsFunc(list, func(n string) bool {
		start, open := strings.CutSuffix(n, "*")
		return folded == n || open && strings.HasPrefix(folded, start)
	})
}

// fold is a header's name as applications may read it: CGI programs see no
// difference between "-", "_" and ".".
func fold(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

// compileHeaders compiles the headers of a guard.
func compileHeaders(list []HeaderUp) (headers []headerUp, err error) {
	for _, h := range list {
		if err := checkHeaderUp(h.Name); err != nil {
			return nil, err
		}
		v, err := gate.CompileValue(h.Value)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "header %s: %w", h.Name, err)
		}
		headers = append(headers, headerUp{name: http.CanonicalHeaderKey(h.Name), value: v})
	}
	return headers, nil
}

// addHeaders adds the headers of a guard that the request has passed by a certificate. A
// value that cannot be evaluated is left out: the header keeps the value that a directive
// of the site has set.
func (p *requestState) addHeaders(q *authorizationRequest, f decision) {
	if len(q.site.headers) == 0 {
		return
	}
	s := &gate.Subject{Verified: f.verdict.cert.verified, Holder: f.status.holder, Request: new(gate.Request)}
	if q.request != nil {
		s.Request = q.at(f.at)
	}
	if p.headers == nil {
		p.headers = make(map[string]string)
	}
	for _, h := range q.site.headers {
		p.headers[h.name] = h.value.Text(s)
	}
}

// setHeaders sets the headers of the request's guards, for a proxied application.
func (p *requestState) setHeaders(h http.Header) {
	if p.identity != nil {
		p.identity.setHeaders(h)
	}
	for name, value := range p.headers {
		if value != "" {
			h[name] = []string{value}
		}
	}
}

// headerNames returns the folded names of the headers that the guards set.
func (g *Guard) headerNames() (names []string) {
	for _, r := range g.Require {
		for _, h := range r.HeaderUp {
			names = append(names, fold(h.Name))
		}
	}
	return names
}
