package front

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/postern-project/postern/gate"
)

func init() {
	caddy.RegisterModule(Require{})
	httpcaddyfile.RegisterDirective("require", parseRequire)
	httpcaddyfile.RegisterDirectiveOrder("require", httpcaddyfile.Before, "tracing")
}

// Require is one require directive as the Caddyfile says it. It is no handler:
// Prepare gathers a site's into one [Guard].
type Require struct {
	Paths []string `json:"paths"`
	gate.Way
	Or       []gate.Way `json:"or,omitempty"`    // further ways to pass
	Trust    []string   `json:"trust,omitempty"` // PEM files; the word "postern" means Postern's own
	CRLs     []string   `json:"crls,omitempty"`
	Depth    int        `json:"depth,omitempty"`
	HeaderUp []HeaderUp `json:"header_up,omitempty"`
	Audit    bool       `json:"audit,omitempty"`  // access is granted only while it is recorded
	Status   int        `json:"status,omitempty"` // of a refusal where no certificate is asked for; 0 is 403
}

// CaddyModule returns the Caddy module information.
func (Require) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.postern_require", New: func() caddy.Module { return new(Require) }}
}

// Provision fails: a guard that Prepare has not put in place guards nothing.
func (*Require) Provision(caddy.Context) error {
	return errors.New("the require directive needs the config adapter \"postern\": caddy run --adapter postern " +
		"--config FILE")
}

// ServeHTTP refuses, and is never reached.
func (*Require) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	return caddyhttp.Error(http.StatusForbidden, nil)
}

// config returns the guard that the directive describes.
func (r *Require) config(indexes []string) gate.Config {
	return gate.Config{Paths: r.Paths, Way: r.Way, Or: r.Or, Depth: r.Depth, Indexes: indexes}
}

// asks reports whether a way to pass asks for a certificate.
func (r *Require) asks() bool {
	return slices.ContainsFunc(r.config(nil).Ways(), func(w gate.Way) bool { return !w.Anyone })
}

func parseRequire(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	if reflect.ValueOf(h.State).Pointer() != reflect.ValueOf(h.BlockState).Pointer() || h.IsNamedRoute() {
		return nil, h.Err("require must be at the top of a site, not inside another block: there it could be bypassed")
	}
	r := new(Require)
	for _, p := range h.RemainingArgs() {
		if p == "*" {
			p = "/"
		}
		r.Paths = append(r.Paths, p)
	}
	if len(r.Paths) == 0 {
		r.Paths = []string{"/"}
	}
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		if err := parseWord("require", requireWords, r, h.Dispenser); err != nil {
			return nil, err
		}
	}
	if err := r.config(nil).Validate(); err != nil {
		return nil, h.WrapErr(err)
	}
	if len(r.HeaderUp) > 0 && !r.asks() {
		return nil, h.Err("header_up is for a guard that asks for a certificate: without one no person is known")
	}
	if r.Status != 0 && r.asks() {
		return nil,
			h.Err("status is for a guard that asks for no certificate: a client without one is answered with 403")
	}
	return []httpcaddyfile.ConfigValue{{Class: "route", Value: caddyhttp.Route{
		HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(r, "handler", "postern_require", nil)},
	}}}, nil
}

// parseStatus reads the status of a refusal.
func (r *Require) parseStatus(d *caddyfile.Dispenser) error {
	if r.Status != 0 || !d.NextArg() {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < 400 || n > 599 {
		return d.Errf("%q is not the status of an error", d.Val())
	}
	r.Status = n
	return nil
}

// parseAudit reads "audit required".
func (r *Require) parseAudit(d *caddyfile.Dispenser) error {
	if !d.NextArg() || d.Val() != "required" || d.NextArg() {
		return d.Err("it is written: audit required")
	}
	r.Audit = true
	return nil
}

// parseDepth reads how many CAs there may be above the client's certificate.
func (r *Require) parseDepth(d *caddyfile.Dispenser) error {
	if r.Depth != 0 || !d.NextArg() {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < 1 {
		return d.Errf("%q is not a depth", d.Val())
	}
	r.Depth = n
	return nil
}

// parseOr reads "or [anyone] { … }": another way to pass.
func (r *Require) parseOr(d *caddyfile.Dispenser) error {
	var w gate.Way
	for d.NextArg() {
		if d.Val() != "anyone" || w.Anyone {
			return d.Errf("or is followed by a block, or by anyone and a block, not by %q", d.Val())
		}
		w.Anyone = true
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := parseWord("or", wayWords, &w, d); err != nil {
			return err
		}
	}
	r.Or = append(r.Or, w)
	return nil
}

// parseAddresses reads networks; private_ranges is Caddy's word for the private
// ones.
func parseAddresses(d *caddyfile.Dispenser, w *gate.Way) error {
	var list []string
	if err := some(d, &list); err != nil {
		return err
	}
	for _, a := range list {
		if a == "private_ranges" {
			w.Addresses = append(w.Addresses, caddyhttp.PrivateRangesCIDR()...)
		} else {
			w.Addresses = append(w.Addresses, a)
		}
	}
	return nil
}

func some(d *caddyfile.Dispenser, to *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*to = append(*to, args...)
	return nil
}

// parseRule compiles the rule at once, so that a mistake is reported with its
// place in the file.
func parseRule(d *caddyfile.Dispenser, w *gate.Way) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	token := d.Token()
	rule := token.Text
	if d.NextArg() {
		return d.Err("a rule is one argument: put it between backquotes")
	}
	if _, err := gate.CompileRule(rule); err != nil {
		return inFile(token, err)
	}
	w.Rules = append(w.Rules, rule)
	return nil
}

// inFile adds the place in the file to a mistake in an expression.
func inFile(token caddyfile.Token, err error) error {
	line := token.Line
	if mistake, ok := errors.AsType[*gate.RuleError](err); ok {
		line += mistake.Line - 1
	}
	return fmt.Errorf("%s:%d: %w", token.File, line, err)
}
