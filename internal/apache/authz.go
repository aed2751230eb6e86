package apache

import (
	"slices"
	"strings"
)

// authz is the condition of Require lines and of the containers around them.
// Lines that stand alone are a RequireAny; those in a <Limit> count for its
// methods, and where none applies all requests pass.
func (c *converter) authz(list []*Directive) expr {
	var some, when []expr
	for _, d := range list {
		if l := limits(d); l != nil {
			when = append(when, l)
			some = append(some, and{l, anyOf(c.requirements(d.Children))})
		} else {
			some = append(some, c.requirement(d))
		}
	}
	if len(when) == len(list) {
		some = append(some, not{anyOf(when)})
	}
	return anyOf(some)
}

// limited is the condition of Order, Allow and Deny lines, of which those in a
// <Limit> count for its methods.
func (c *converter) limited(list []*Directive) expr {
	plain := slices.DeleteFunc(slices.Clone(list), func(d *Directive) bool { return limits(d) != nil })
	e := expr(truth(true))
	if len(plain) > 0 {
		e = c.legacy(plain)
	}
	for _, d := range list {
		if l := limits(d); l != nil {
			e = or{and{not{l}, e}, and{l, c.legacy(append(slices.Clone(plain), d.Children...))}}
		}
	}
	return e
}

// requirements returns the conditions of several lines.
func (c *converter) requirements(list []*Directive) []expr {
	var out []expr
	for _, d := range list {
		out = append(out, c.requirement(d))
	}
	return out
}

// requirement is one Require line or container as a condition. What has no
// match is a comparison that never holds, negated or not.
func (c *converter) requirement(d *Directive) expr {
	var kids []*Directive
	for _, k := range d.Children {
		if strings.HasPrefix(strings.ToLower(k.Name), "require") {
			kids = append(kids, k)
		}
	}
	switch strings.ToLower(d.Name) {
	case "requireall":
		return allOf(c.requirements(kids))
	case "requireany":
		return anyOf(c.requirements(kids))
	case "requirenone":
		return not{anyOf(c.requirements(kids))}
	}
	args := d.Args
	neg := len(args) > 0 && strings.EqualFold(args[0], "not")
	if neg {
		args = args[1:]
	}
	x := c.provider(d, args)
	if neg {
		return not{x}
	}
	return x
}

// provider is what one authorization provider asks.
func (c *converter) provider(d *Directive, args []string) expr {
	if len(args) == 0 {
		c.notes.add(Closed, d, "asks for nothing that is named")
		return never{}
	}
	name, rest := strings.ToLower(args[0]), args[1:]
	switch name {
	case "all":
		return truth(len(rest) > 0 && strings.EqualFold(rest[0], "granted"))
	case "ssl":
		return truth(c.site == nil || c.site.tls)
	case "ssl-verify-client":
		return verified
	case "env":
		var list []expr
		for _, a := range rest {
			if x := c.fromEnv(a); x != nil {
				list = append(list, x)
				continue
			}
			c.notes.add(Closed, d, "what sets %s can't be followed, and no request passes by it", a)
			list = append(list, never{})
		}
		return anyOf(list)
	case "method":
		return methods(rest)
	case "ip":
		var list []expr
		for _, a := range rest {
			net, ok := apacheNet(a)
			if !ok {
				c.notes.add(Closed, d, "%q is no address", a)
				continue
			}
			list = append(list, unary{"-R", word{{lit: net}}})
		}
		return anyOf(list)
	case "local":
		return or{unary{"-R", word{{lit: "127.0.0.0/8"}}}, unary{"-R", word{{lit: "::1/128"}}}}
	case "expr":
		raw := strings.TrimSpace(d.Raw[strings.Index(strings.ToLower(d.Raw), "expr")+4:])
		if n := len(raw); n > 1 && (raw[0] == '"' || raw[0] == '\'') && raw[n-1] == raw[0] && len(rest) == 1 {
			raw = rest[0]
		}
		e, err := parseExpr(raw, apExpr)
		if err != nil {
			c.notes.add(Closed, d, "can't be read: %v", err)
			return never{}
		}
		return e
	}
	c.notes.add(Closed, d, "Require %s has no match, and no request passes by it", name)
	return never{}
}

// legacy carries over Order, Allow and Deny of Apache 2.2.
func (c *converter) legacy(list []*Directive) expr {
	var allow, deny []expr
	denyFirst := false
	for _, d := range list {
		if d.is("Order") {
			denyFirst = !strings.EqualFold(strings.ReplaceAll(d.Raw, " ", ""), "deny,allow")
			continue
		}
		for _, a := range d.Args[min(1, len(d.Args)):] {
			var x expr
			net, ok := apacheNet(a)
			switch {
			case strings.EqualFold(a, "all"):
				x = truth(true)
			case ok:
				x = unary{"-R", word{{lit: net}}}
			case len(a) > 4 && strings.EqualFold(a[:4], "env="):
				x = c.fromEnv(a[4:])
			}
			if x == nil {
				c.notes.add(Closed,
					d, "%q is neither all, nor an address, nor a variable that can be followed: it permits no address",
					a)
				x = never{}
				if d.is("Deny") {
					x = truth(true)
				}
			}
			if d.is("Allow") {
				allow = append(allow, x)
			} else {
				deny = append(deny, x)
			}
		}
	}
	if denyFirst { // Order allow,deny: refused unless allowed, and deny wins
		return and{anyOf(allow), not{anyOf(deny)}}
	}
	return or{anyOf(allow), not{anyOf(deny)}} // Order deny,allow: passed unless denied, and allow wins
}
