package apache

import (
	"net/url"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// guard is a place and the ways to pass there.
type guard struct {
	at      *Directive
	prefix  []string // path prefixes; "/" is the whole site
	regexp  string   // or a regular expression over the path
	closed  bool     // the place could not be determined, and no request passes
	depth   string   // SSLVerifyDepth in force
	ways    ways
	status  int        // of the answer where no certificate is asked for; 0 is 403
	headers []headerUp // what the application learns of the certificate
}

// guardPlain puts the guards of a name's HTTPS site into its plain HTTP site
// too: there a guarded place redirects to HTTPS, in every spelling of its path.
func (c *converter) guardPlain(sites []*site) {
	for _, plain := range sites {
		if plain.tls {
			continue
		}
		i := slices.IndexFunc(sites, func(s *site) bool {
			return s.tls && slices.ContainsFunc(s.names, func(n string) bool {
				return slices.Contains(plain.names, n)
			})
		})
		if i >= 0 {
			own := plain.guards
			plain.trust, plain.crl = sites[i].trust, sites[i].crl
			plain.guards = append(slices.Clone(sites[i].guards), own...)
			continue
		}
		for _, g := range plain.guards {
			if g.ways.certify && len(g.ways.open) == 0 {
				c.notes.add(Changed, g.at, "a certificate can be shown over HTTPS only; this host has no HTTPS site")
			}
		}
	}
}

func first(list []*Directive, or *Directive) *Directive {
	if len(list) > 0 {
		return list[0]
	}
	return or
}

// setLocation places a <Location>: a prefix, unless it has wild cards.
func (g *guard) setLocation(c *converter, p string) {
	if strings.Contains(p, "://") {
		p = p[strings.Index(p, "://")+3:]
		p = p[max(strings.IndexByte(p, '/'), 0):]
	}
	if i := strings.IndexAny(p, "*?["); i >= 0 {
		g.prefix = []string{clean(p[:i])}
		c.notes.add(Changed, g.at, "the wild card guards everything that begins with %s", g.prefix[0])
		return
	}
	g.prefix = []string{clean(p)}
	if decoded, err := url.PathUnescape(p); err == nil && decoded != p {
		g.prefix = append(g.prefix, clean(decoded))
		c.notes.add(Changed, g.at, "Apache decodes a path before it compares; guarded is also the place that is meant")
	}
}

func clean(p string) string {
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	if c := path.Clean(p); c != "/" && strings.HasSuffix(p, "/") {
		return c + "/"
	} else {
		return c
	}
}

// setRegexp places a regular expression: as prefixes where it is an anchored
// choice of literals, else as it is.
func (g *guard) setRegexp(c *converter, re string) {
	parsed, err := syntax.Parse(re, syntax.Perl)
	if err != nil {
		c.notes.add(Closed, g.at, "the regular expression uses what RE2 lacks, so the whole site is closed")
		g.prefix, g.closed = []string{"/"}, true
		return
	}
	if list, ok := literalPrefixes(parsed.Simplify()); ok {
		g.prefix = list
		return
	}
	g.regexp = re
}

// setFiles places a pattern over a file's name: a path element, also with more
// path behind it, which a script gets as path info.
func (g *guard) setFiles(c *converter, re string, within *guard) {
	body, anchored := strings.CutPrefix(re, "^")
	lead := "/[^/]*"
	if anchored {
		lead = "/"
	}
	if b, end := strings.CutSuffix(body, "$"); end && !strings.HasSuffix(b, `\`) {
		body = b + "(?:/|$)"
	}
	full := lead + "(?:" + body + ")"
	if anchored || !strings.Contains(body, "|") {
		full = lead + body
	}
	if within != nil && within.regexp == "" && len(within.prefix) > 0 && !slices.Contains(within.prefix, "/") {
		var alts []string
		for _, p := range within.prefix {
			alts = append(alts, regexp.QuoteMeta(strings.TrimSuffix(p, "/")))
		}
		full = "^(?:" + strings.Join(alts, "|") + ").*" + full
	}
	if _, err := syntax.Parse(full, syntax.Perl); err != nil {
		c.notes.add(Closed, g.at, "the pattern uses what RE2 lacks, so the whole site is closed")
		g.prefix, g.closed = []string{"/"}, true
		return
	}
	g.regexp = full
}

// maxPrefixes bounds how many literals a regular expression may spell out.
const maxPrefixes = 64

// literalPrefixes returns the strings that an anchored expression spells out,
// if all it says after ^ is a choice of literals, with nothing behind but what
// a prefix means anyway.
func literalPrefixes(re *syntax.Regexp) ([]string, bool) {
	if re.Op != syntax.OpConcat || len(re.Sub) < 2 || re.Sub[0].Op != syntax.OpBeginText ||
		re.Flags&syntax.FoldCase != 0 {
		return nil, false
	}
	list := []string{""}
	for i, sub := range re.Sub[1:] {
		alts, ok := spelled(sub)
		if !ok {
			// A tail that matches everything adds nothing to a prefix.
			if i > 0 && i == len(re.Sub)-2 && sub.Op == syntax.OpStar && (sub.Sub[0].Op == syntax.OpAnyCharNotNL ||
				sub.Sub[0].Op == syntax.OpAnyChar) {
				return list, true
			}
			return nil, false
		}
		if len(list)*len(alts) > maxPrefixes {
			return nil, false
		}
		var next []string
		for _, a := range list {
			for _, b := range alts {
				next = append(next, a+b)
			}
		}
		list = next
	}
	for _, p := range list {
		if !strings.HasPrefix(p, "/") {
			return nil, false
		}
	}
	return list, true
}

// spelled returns the strings that a part of an expression matches, if they
// are few and literal.
func spelled(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return nil, false
		}
		return []string{string(re.Rune)}, true
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpCapture:
		return spelled(re.Sub[0])
	case syntax.OpAlternate:
		var out []string
		for _, sub := range re.Sub {
			s, ok := spelled(sub)
			if !ok || len(out)+len(s) > maxPrefixes {
				return nil, false
			}
			out = append(out, s...)
		}
		return out, true
	case syntax.OpConcat:
		out := []string{""}
		for _, sub := range re.Sub {
			s, ok := spelled(sub)
			if !ok || len(out)*len(s) > maxPrefixes {
				return nil, false
			}
			var next []string
			for _, a := range out {
				for _, b := range s {
					next = append(next, a+b)
				}
			}
			out = next
		}
		return out, true
	}
	return nil, false
}
