package apache

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// policy puts the access directives of one place into one policy. Directives
// are mod_ssl's, which add up, and mod_authz's, which are a tree of their own.
func (c *converter) policy(s *site, list []*Directive, p policy) policy {
	var authz []*Directive
	satisfyAny, order, strictly, ssl := false, false, []*Directive{}, false
	for _, d := range list {
		switch strings.ToLower(d.Name) {
		case "sslverifyclient":
			c.verify(s, d, &p)
		case "sslverifydepth":
			p.depth = d.arg(0)
			if n, err := strconv.Atoi(p.depth); err != nil || n < 1 || n > maxCAs {
				c.notes.add(Closed, d, "a depth is 1 to %d here", maxCAs)
				p.closed = true
			}
		case "sslrequire":
			c.sslRequire(d, &p)
			ssl = true
		case "sslrequiressl":
			if !s.tls {
				p.closed = true
			}
		case "allowmethods":
			if !strings.EqualFold(d.arg(0), "reset") {
				c.rule(d, methods(d.Args), apExpr, &p)
			}
		case "require", "requireall", "requireany", "requirenone":
			authz = append(authz, d)
		case "order", "allow", "deny":
			order = true
			strictly = append(strictly, d)
		case "satisfy":
			satisfyAny = strings.EqualFold(d.arg(0), "any")
		case "limit", "limitexcept":
			c.limit(s, d, &p)
		case "sslusername":
			c.notes.add(Info, d, "the application gets the person's name as REMOTE_USER in any case")
		case "ssloptions":
			c.sslOptions(d)
		}
	}
	c.env = slices.DeleteFunc(slices.Clone(list), func(d *Directive) bool { return !setsEnv[strings.ToLower(d.Name)] })
	if satisfyAny && (len(authz) > 0 && order || ssl && (len(authz) > 0 || order)) {
		c.notes.add(Narrowed, list[0], "Satisfy any is not carried over: all conditions must hold")
	}
	if order {
		c.legacy(strictly, &p)
	}
	if len(authz) > 0 {
		c.authz(authz, &p)
	}
	p.hosts = dropTrue(p.hosts, &p)
	p.rules = dropTrue(p.rules, &p)
	if s.ocsp != nil && p.asks() && !p.closed {
		c.notes.add(Closed, s.ocsp, "Postern asks no OCSP responder whether a foreign certificate is revoked; use SSLCARevocationFile")
		p.closed = true
	}
	return p
}

// maxCAs is how deep a chain the gate looks at.
const maxCAs = 10

// methods is the condition that a request's method is one of some; GET means
// HEAD too.
func methods(names []string) expr {
	var list []word
	for _, m := range names {
		list = append(list, word{{lit: m}})
		if m == "GET" {
			list = append(list, word{{lit: "HEAD"}})
		}
	}
	return in{word{{name: "REQUEST_METHOD"}}, list}
}

// limit adds what a <Limit> asks of its methods, and a <LimitExcept> of all
// others.
func (c *converter) limit(s *site, d *Directive, p *policy) {
	if !guardsSomething(d) {
		return
	}
	when := methods(d.Args)
	if d.is("LimitExcept") {
		when = not{when}
	}
	inner := c.policy(s, d.Children, policy{})
	c.conditional(d, &inner, when)
	p.closed = p.closed || inner.closed
	p.shown = p.shown || inner.shown || inner.verify == "require"
	p.rules, p.hosts = append(p.rules, inner.rules...), append(p.hosts, inner.hosts...)
}

// dropTrue leaves out rules that ask nothing, and closes for one that nothing
// meets.
func dropTrue(rules []string, p *policy) []string {
	var out []string
	for _, r := range rules {
		switch r {
		case "true":
		case "false":
			p.closed = true
		default:
			out = append(out, r)
		}
	}
	return out
}

func (c *converter) verify(s *site, d *Directive, p *policy) {
	switch v := strings.ToLower(d.arg(0)); v {
	case "none":
		if p.verify == "require" {
			c.notes.add(Closed, d, "the certificate that is asked for outside is asked for here too")
			return
		}
		p.verify = v
	case "optional":
		if p.verify != "require" {
			p.verify = v
		}
		c.notes.add(Info, d, "a certificate is asked for, not insisted on, in the whole site; a rule decides where it must be shown")
	case "optional_no_ca":
		p.closed = true
		c.notes.add(Closed, d, "a certificate that nobody vouches for proves nothing; name its CA with SSLCACertificateFile")
	case "require":
		p.verify = v
		if len(s.trust) == 0 {
			c.notes.add(Changed, d, "no SSLCACertificateFile says whose certificates count, so Postern's own do")
		}
	default:
		p.closed = true
		c.notes.add(Closed, d, "%q is no value of SSLVerifyClient", d.arg(0))
	}
}

// sslRequire carries over one SSLRequire.
func (c *converter) sslRequire(d *Directive, p *policy) {
	e, err := parseExpr(d.Raw, sslRequire)
	if err != nil {
		p.closed = true
		c.notes.add(Closed, d, "can't be read: %v", err)
		return
	}
	c.rule(d, e, sslRequire, p)
}

// rule adds a condition to the policy, in the language of the gate.
func (c *converter) rule(d *Directive, e expr, dia dialect, p *policy) {
	v := &vocabulary{dialect: dia, site: c.site, zone: c.cfg.TimeZone, file: c.readFile}
	cel, reasons := v.rule(e)
	for _, r := range reasons {
		c.notes.add(Closed, d, "%s; that part of the condition never holds", r)
	}
	for _, r := range v.changed {
		c.notes.add(Changed, d, "%s", r)
	}
	if v.certificate {
		p.shown = true
		p.rules = append(p.rules, cel)
		if p.verify != "require" && c.holdsWithout(e, dia) {
			c.notes.add(Narrowed, d, "Apache lets some requests pass without a certificate; here one is asked for in any case. "+
				"Put what they meet into a block \"or anyone\" of the guard")
		}
		if p.verify == "" || p.verify == "none" {
			c.notes.add(Changed, d, "Apache asks nobody here for a certificate, so nobody passes; Postern asks for one")
		}
		return
	}
	p.hosts = append(p.hosts, cel)
}

// holdsWithout reports whether a condition may hold for a request without a
// certificate: it reads none, or has an alternative or a negation that does so.
func (c *converter) holdsWithout(e expr, dia dialect) bool {
	switch e := e.(type) {
	case or:
		return c.holdsWithout(e.l, dia) || c.holdsWithout(e.r, dia)
	case and:
		return c.holdsWithout(e.l, dia) && c.holdsWithout(e.r, dia)
	case not:
		return e.x != expr(truth(true)) && e.x != expr(never{})
	case truth:
		return bool(e)
	case never:
		return false
	}
	v := &vocabulary{dialect: dia, site: c.site, zone: c.cfg.TimeZone, file: c.readFile}
	v.rule(e)
	return !v.certificate
}

// authz carries over Require lines and the containers around them. Lines that
// stand alone are a RequireAny.
func (c *converter) authz(list []*Directive, p *policy) {
	e := anyOf(c.requirements(list))
	c.rule(list[0], e, apExpr, p)
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
		return binary{"==", word{{name: "SSL_CLIENT_VERIFY"}}, word{{lit: "SUCCESS"}}}
	case "env":
		var list []expr
		for _, a := range rest {
			if x := c.fromEnv(a); x != nil {
				list = append(list, x)
				continue
			}
			c.notes.add(Closed, d, "what sets %s can't be followed, and nobody passes by it", a)
			list = append(list, never{})
		}
		return anyOf(list)
	case "method":
		var list []word
		for _, m := range rest {
			list = append(list, word{{lit: m}})
		}
		return in{word{{name: "REQUEST_METHOD"}}, list}
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
	c.notes.add(Closed, d, "Require %s has no match, and nobody passes by it", name)
	return never{}
}

// sslOptions says what became of an SSLOptions line.
func (c *converter) sslOptions(d *Directive) {
	for _, o := range d.Args {
		switch strings.ToLower(strings.TrimLeft(o, "+-")) {
		case "stdenvvars", "exportcertdata", "strictrequire", "optrenegotiate", "legacydnstringformat":
		case "fakebasicauth":
			c.notes.add(Changed, d, "the application gets the person's name as REMOTE_USER, with no password made up")
		}
	}
}

// legacy carries over Order, Allow and Deny of Apache 2.2.
func (c *converter) legacy(list []*Directive, p *policy) {
	var e expr
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
				c.notes.add(Closed, d, "%q is neither all, nor an address, nor a variable that can be followed: it lets nobody in", a)
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
		e = and{anyOf(allow), not{anyOf(deny)}}
	} else { // Order deny,allow: passed unless denied, and allow wins
		e = or{anyOf(allow), not{anyOf(deny)}}
	}
	c.rule(list[0], e, apExpr, p)
}

// anyOf holds if one of the conditions does, and never for none of them.
func anyOf(list []expr) expr {
	if len(list) == 0 {
		return truth(false)
	}
	e := list[0]
	for _, x := range list[1:] {
		e = or{e, x}
	}
	return e
}

// allOf holds if all of the conditions do.
func allOf(list []expr) expr {
	if len(list) == 0 {
		return truth(true)
	}
	e := list[0]
	for _, x := range list[1:] {
		e = and{e, x}
	}
	return e
}

// apacheNet reads an address the way Apache writes them: whole, the first
// octets only, with a prefix length or with a mask.
func apacheNet(s string) (string, bool) {
	addr, mask, masked := strings.Cut(s, "/")
	if strings.Contains(addr, ":") {
		if !masked {
			mask = "128"
		}
		p, err := netip.ParsePrefix(addr + "/" + mask)
		return p.Masked().String(), err == nil
	}
	octets := strings.Split(strings.TrimSuffix(addr, "."), ".")
	if len(octets) > 4 || octets[0] == "" {
		return "", false
	}
	bits := strconv.Itoa(8 * len(octets))
	for len(octets) < 4 {
		octets = append(octets, "0")
	}
	if masked {
		bits = mask
		if m, err := netip.ParseAddr(mask); err == nil && m.Is4() {
			ones, size := net.IPMask(m.AsSlice()).Size()
			if size == 0 {
				return "", false
			}
			bits = strconv.Itoa(ones)
		}
	}
	p, err := netip.ParsePrefix(strings.Join(octets, ".") + "/" + bits)
	return p.Masked().String(), err == nil
}
