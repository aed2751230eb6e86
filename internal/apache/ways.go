package apache

import (
	"slices"
	"strings"
)

// ways are the ways to pass a guard.
type ways struct {
	all     bool      // all requests pass
	closed  bool      // none does
	certify bool      // a certificate is one
	rules   []string  // what must hold beside the certificate
	open    []openWay // those without a certificate
}

// openWay is a way to pass without a certificate: all of it must hold.
type openWay struct{ networks, methods, rules []string }

var closedWays = ways{closed: true}

// maxOpenWays bounds how many ways are written one by one.
const maxOpenWays = 8

// ways finds the ways by which a request meets a condition. It is written for those
// who show a certificate, and again for what holds whether they do or not: only that
// lets pass without one, since a client with a wrong certificate may leave it out. Asked
// is whether Apache asks for a certificate there.
func (c *converter) ways(at *Directive, e expr, asked bool) ways {
	certified, none, either := c.tree(e, anyShown), c.tree(e, noneShown), c.tree(e, eitherWay)
	if none.text(0) != either.text(0) && none.op != 'f' {
		c.notes.add(Narrowed, at,
			"Apache lets some requests pass that show no certificate, and not those that show another one; "+
				"here a certificate is asked for in any case")
	}
	switch {
	case either.op == 't':
		return ways{all: true}
	case either.op == 'f' && certified.op == 'f':
		return closedWays
	}
	w := ways{open: openWays(either)}
	if certified.op == 'f' || certified.text(0) == either.text(0) {
		return w
	}
	w.certify = true
	if certified.op != 't' {
		for _, k := range certified.parts('&') {
			w.rules = append(w.rules, k.text(0))
		}
	}
	if !asked && c.site.tls {
		c.notes.add(Widened, at,
			"Apache asks no client here for a certificate, so that its conditions on one do not hold; Postern asks "+
				"for one")
	}
	return w
}

// tree writes a condition, without a note of what has no match.
func (c *converter) tree(e expr, s shown) node {
	v := c.vocabulary(apExpr)
	v.shown = s
	n, _ := v.tree(e)
	return n
}

// constant reports whether a condition always holds ('t') or never does ('f'),
// whatever certificate is shown; 0 if neither.
func (c *converter) constant(e expr) byte {
	switch certified, none := c.tree(e, anyShown), c.tree(e, noneShown); {
	case certified.op != none.op || certified.op != 't' && certified.op != 'f':
		return 0
	default:
		return certified.op
	}
}

// openWays takes a condition apart into its alternatives.
func openWays(n node) []openWay {
	alternatives := n.parts('|')
	if n.op == 'f' {
		return nil
	}
	if len(alternatives) > maxOpenWays {
		alternatives = []node{n}
	}
	var out []openWay
	var networks []string // of the alternatives that are an address alone
	for _, a := range alternatives {
		if len(a.nets) > 0 {
			networks = append(networks, a.nets...)
			continue
		}
		var w openWay
		for _, k := range a.parts('&') {
			switch {
			case len(k.nets) > 0 && w.networks == nil:
				w.networks = k.nets
			case len(k.methods) > 0 && w.methods == nil:
				w.methods = k.methods
			default:
				w.rules = append(w.rules, k.text(0))
			}
		}
		out = append(out, w)
	}
	if len(networks) > 0 {
		out = append([]openWay{{networks: networks}}, out...)
	}
	return out
}

// write writes the lines of a way.
func (w openWay) write(b *strings.Builder, indent string) {
	if len(w.networks) > 0 {
		b.WriteString(indent + "address " + strings.Join(w.networks, " ") + "\n")
	}
	if len(w.methods) > 0 {
		b.WriteString(indent + "method " + strings.Join(w.methods, " ") + "\n")
	}
	for _, r := range slices.Compact(w.rules) {
		b.WriteString(indent + "rule `" + r + "`\n")
	}
}
