package apache

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// policy is what a section says about who may pass.
type policy struct {
	depth     string        // SSLVerifyDepth in force
	says      [modules]expr // what takes the place of what sections around say; nil says nothing
	satisfies expr          // what is enough in place of the Require lines around: Satisfy any
	adds      []expr        // what must hold beside what sections around say
	asks      bool          // a certificate is asked for: SSLVerifyClient
	joins     bool          // the Require lines around count, too: AuthMerging
	closed    bool          // no request passes
}

// module is a module of Apache by which a section says something anew.
type module int

const (
	byVerify  module = iota // mod_ssl: SSLVerifyClient
	byAuthz                 // mod_authz_core: Require
	byAccess                // mod_access_compat: Order, Allow, Deny
	byMethods               // mod_allowmethods
	modules
)

// takesOver is the condition under which a section takes over what those around
// it say by a module; nil is never.
func (p *policy) takesOver(by module) expr {
	switch {
	case by == byAuthz && p.joins:
		return nil
	case p.says[by] != nil:
		return truth(true)
	case by == byAuthz:
		return p.satisfies
	}
	return nil
}

// access lines of one section, sorted by who reads them.
type lines struct{ authz, order []*Directive }

// policy reads the access directives of one section.
func (c *converter) policy(s *site, list []*Directive) policy {
	var p policy
	var l lines
	var satisfy *Directive
	c.env = slices.DeleteFunc(slices.Clone(list), func(d *Directive) bool { return !setsEnv[strings.ToLower(d.Name)] })
	for _, d := range list {
		switch strings.ToLower(d.Name) {
		case "require", "requireall", "requireany", "requirenone":
			l.authz = append(l.authz, d)
		case "order", "allow", "deny":
			l.order = append(l.order, d)
		case "satisfy":
			satisfy = d
		case "limit", "limitexcept":
			c.limit(s, d, &l, &p)
		default:
			c.sslPolicy(s, d, &p)
		}
	}
	if len(l.authz) > 0 {
		p.says[byAuthz] = c.authz(l.authz)
		c.check(l.authz[0], p.says[byAuthz])
	}
	if len(l.order) > 0 {
		p.says[byAccess] = c.limited(l.order)
		c.check(l.order[0], p.says[byAccess])
	}
	if legacyDNs(list) {
		for m, e := range p.says {
			if e != nil {
				p.says[m] = legacyNames{e}
			}
		}
		for i, e := range p.adds {
			p.adds[i] = legacyNames{e}
		}
	}
	if satisfy != nil && strings.EqualFold(satisfy.arg(0), "any") {
		c.satisfyAny(satisfy, &p)
	}
	return p
}

// legacyDNs reports whether directives switch on OpenSSL's old form of DNs.
func legacyDNs(list []*Directive) bool {
	return slices.ContainsFunc(list, func(d *Directive) bool {
		return d.is("SSLOptions") && slices.ContainsFunc(d.Args, func(o string) bool {
			return strings.EqualFold(strings.TrimPrefix(o, "+"), "LegacyDNStringFormat")
		})
	})
}

// satisfyAny lets a request pass that meets one of two: the address and SSLRequire,
// or the Require lines. Without a Deny line any address will do. A certificate that the
// handshake insists on is shown in either case.
func (c *converter) satisfyAny(d *Directive, p *policy) {
	access := p.says[byAccess]
	if access == nil {
		access = truth(true)
		c.notes.add(Info, d, "there is no Deny line beside it: all requests pass")
	}
	if p.says[byAuthz] == nil {
		p.satisfies = access
		return
	}
	p.says[byAuthz] = or{allOf(append(p.adds, access)), p.says[byAuthz]}
	p.says[byAccess], p.adds = truth(true), nil
}

// sslPolicy reads one directive of mod_ssl's, or another that stands alone.
func (c *converter) sslPolicy(s *site, d *Directive, p *policy) {
	switch strings.ToLower(d.Name) {
	case "sslverifyclient":
		c.verify(s, d, p)
	case "sslverifydepth":
		p.depth = d.arg(0)
		if n, err := strconv.Atoi(p.depth); err != nil || n < 1 || n > maxCAs {
			c.notes.add(Closed, d, "a depth is 1 to %d here", maxCAs)
			p.closed = true
		}
	case "sslrequire":
		c.sslRequire(d, p)
	case "sslrequiressl":
		if !s.tls {
			p.closed = true
		}
	case "allowmethods":
		p.says[byMethods] = truth(true)
		if !strings.EqualFold(d.arg(0), "reset") {
			p.says[byMethods] = methods(d.Args)
		}
	case "authmerging":
		p.joins = !strings.EqualFold(d.arg(0), "off")
		if strings.EqualFold(d.arg(0), "or") {
			c.notes.add(Narrowed, d, "the Require lines around must hold as well as those here")
		}
	case "sslusername":
		c.notes.add(Info, d, "the application gets the person's name as REMOTE_USER in any case")
	case "ssloptions":
		c.sslOptions(d)
	}
}

// maxCAs is how deep a chain the gate looks at.
const maxCAs = 10

// methods is the condition that a request's method is one of some; GET means
// HEAD too.
func methods(names []string) expr {
	var list []word
	for _, m := range names {
		list = append(list, word{{lit: m}})
		if m == "GET" && !slices.Contains(names, "HEAD") {
			list = append(list, word{{lit: "HEAD"}})
		}
	}
	return in{word{{name: "REQUEST_METHOD"}}, list}
}

// limit sorts the lines of a <Limit> or <LimitExcept>. Those of mod_ssl count for
// every method, as in Apache.
func (c *converter) limit(s *site, d *Directive, l *lines, p *policy) {
	var of lines
	for _, k := range d.Children {
		switch name := strings.ToLower(k.Name); {
		case strings.HasPrefix(name, "require"):
			of.authz = append(of.authz, k)
		case name == "order" || name == "allow" || name == "deny":
			of.order = append(of.order, k)
		case name == "satisfy":
			c.notes.add(Closed, k, "Satisfy for some methods has no match: all that is asked must hold")
		default:
			if strings.HasPrefix(name, "ssl") {
				c.notes.add(Info, k, "as in Apache it applies to every method")
			}
			c.sslPolicy(s, k, p)
		}
	}
	if len(of.authz) > 0 {
		l.authz = append(l.authz, d.of(of.authz))
	}
	if len(of.order) > 0 {
		l.order = append(l.order, d.of(of.order))
	}
}

// of is the section with other lines in it.
func (d *Directive) of(children []*Directive) *Directive {
	k := *d
	k.Children = children
	return &k
}

// limits is the condition that a <Limit> or <LimitExcept> applies to a request's
// method; nil for another directive.
func limits(d *Directive) expr {
	switch {
	case d.is("Limit"):
		return methods(d.Args)
	case d.is("LimitExcept"):
		return not{methods(d.Args)}
	}
	return nil
}

// check notes what of a condition has no match, and what means something else.
func (c *converter) check(d *Directive, e expr) {
	v := c.vocabulary(apExpr)
	_, reasons := v.tree(e)
	for _, r := range reasons {
		c.notes.add(Closed, d, "%s; that part of the condition never holds", r)
	}
	for _, r := range v.changed {
		c.notes.add(Changed, d, "%s", r)
	}
}

// vocabulary returns Apache's variables as they are called for the site.
func (c *converter) vocabulary(d dialect) *vocabulary {
	return &vocabulary{
		dialect: d, site: c.site, zone: c.cfg.TimeZone, file: c.readFile,
		oneline: c.site != nil && c.site.oneline,
	}
}

// verify reads an SSLVerifyClient.
func (c *converter) verify(s *site, d *Directive, p *policy) {
	p.asks = !strings.EqualFold(d.arg(0), "none")
	switch v := strings.ToLower(d.arg(0)); v {
	case "none":
		p.says[byVerify] = truth(true)
	case "optional":
		p.says[byVerify] = truth(true)
		c.notes.add(Info, d,
			"a certificate is asked for, not insisted on, in the whole site; a rule decides where it must be shown")
	case "optional_no_ca":
		p.closed = true
		c.notes.add(Closed, d,
			"a certificate that no CA vouches for proves nothing; name its CA with SSLCACertificateFile")
	case "require":
		p.says[byVerify] = verified
		if len(s.trust) == 0 {
			c.notes.add(Changed, d,
				"no SSLCACertificateFile says whose certificates are trusted, so Postern's own are")
		}
	default:
		p.closed = true
		c.notes.add(Closed, d, "%q is no value of SSLVerifyClient", d.arg(0))
	}
}

// verified is the condition that a certificate was shown and verified.
var verified = binary{"==", word{{name: "SSL_CLIENT_VERIFY"}}, word{{lit: "SUCCESS"}}}

// sslRequire carries over one SSLRequire.
func (c *converter) sslRequire(d *Directive, p *policy) {
	e, err := parseExpr(d.Raw, sslRequire)
	if err != nil {
		p.closed = true
		c.notes.add(Closed, d, "can't be read: %v", err)
		return
	}
	e = written{sslRequire, e}
	c.check(d, e)
	p.adds = append(p.adds, e)
}

// sslOptions says what became of an SSLOptions line.
func (c *converter) sslOptions(d *Directive) {
	for _, o := range d.Args {
		switch strings.ToLower(strings.TrimLeft(o, "+-")) {
		// see legacyDNs
		case "stdenvvars", "exportcertdata", "strictrequire", "optrenegotiate", "legacydnstringformat":
		case "fakebasicauth":
			c.notes.add(Changed, d, "the application gets the person's name as REMOTE_USER, with no password made up")
		}
	}
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
