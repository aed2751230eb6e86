package apache

import (
	"net/http"
	"regexp/syntax"
	"slices"
	"strings"
)

// Redirects and rewrites keep people out too: what Apache forbids, calls gone
// or sends elsewhere it does not show. Here are those that become guards: all
// that forbid, which a matcher of Caddy's would do only for the spelling of a
// path that it knows, and all that send elsewhere for a reason that only the
// gate can judge.

// maxStops bounds how many rules are looked back at: those beyond open nothing.
const maxStops = 32

// stepGuards turns the steps that refuse requests into guards.
func (c *converter) stepGuards(s *site) []guard {
	s.steps = slices.DeleteFunc(s.steps, func(st step) bool {
		return st.is("RewriteRule") && st.place == nil && !s.engine
	})
	var out []guard
	var stops []*step    // rules before, behind which Apache asks no further
	exact := !c.inherits // no rule before says which of the next count
	for i := range s.steps {
		st := &s.steps[i]
		switch {
		case st.is("Redirect"), st.is("RedirectPermanent"), st.is("RedirectTemp"), st.is("RedirectMatch"):
			out = append(out, c.redirectGuard(s, st)...)
		case st.is("RewriteRule"):
			r := st.rule()
			out = append(out, c.rewriteGuard(s, st, r, stops)...)
			exact = exact && r.flags["c"] == "" && r.flags["s"] == "" && r.flags["n"] == "" && r.flags["next"] == ""
			if r.stops() && exact && len(stops) < maxStops {
				stops = append(stops, st)
			}
		case st.is("ProxyPassMatch"):
			out = append(out, c.proxyMatchGuard(s, st)...)
		}
	}
	return out
}

// redirectGuard returns the guard of a Redirect that shows nothing, or that
// has no match.
func (c *converter) redirectGuard(s *site, st *step) []guard {
	r, ok := st.redirection()
	if !ok {
		return nil // Apache would not start with it
	}
	unreadable := st.is("RedirectMatch") && !readable(r.from)
	switch {
	case r.code == "":
	case unreadable:
	case st.when != nil:
		c.notes.add(Changed, st.Directive, "who Apache sends elsewhere is refused here")
	case strings.ContainsAny(r.target, "%") && strings.Contains(r.target, "%{"):
		c.notes.add(Closed, st.Directive, "the target uses a variable that has no match")
	default:
		return nil
	}
	st.gone = true
	g := st.ground()
	pattern := ""
	switch {
	case st.is("RedirectMatch"):
		pattern = r.from
	case r.from != "":
		g.prefix, g.regexp = []string{clean(r.from)}, ""
	}
	return c.answered(st, c.refuse(s, st, g, pattern, false, st.when), r.code, r.status)
}

// answered lets guards refuse with the status that Apache answers with. One
// that asks for a certificate refuses in its own way.
func (c *converter) answered(st *step, guards []guard, code string, status int) []guard {
	for i := range guards {
		g := &guards[i]
		switch {
		case code != "" || status == http.StatusForbidden:
		case status == 0 || g.ways.certify:
			c.notes.add(Changed, st.Directive, "answered with 403")
		default:
			g.status = status
		}
	}
	return guards
}

// ground returns a guard, without a policy yet, of the place that a step applies
// to: that of its section, or the whole host.
func (st *step) ground() guard {
	g := guard{at: st.Directive, prefix: []string{"/"}}
	if st.place != nil {
		g.prefix, g.regexp = st.place.prefix, st.place.regexp
	}
	return g
}

// proxyMatchGuard closes what a ProxyPassMatch passes on, unless it is how PHP
// is run.
func (c *converter) proxyMatchGuard(s *site, st *step) []guard {
	st.gone = true
	target := st.arg(1)
	switch {
	case target == "!":
		return nil
	case strings.HasPrefix(target, "fcgi://"), strings.HasPrefix(target, "unix:"):
		c.handler(s, &Directive{
			Name: st.Name, Args: []string{"proxy:" + fcgiAddress(target)}, Raw: st.Raw,
			File: st.File, Line: st.Line,
		})
		return nil
	}
	c.notes.add(Closed, st.Directive, "a proxy by pattern has no match; use ProxyPass")
	return c.refuse(s, st, st.ground(), st.arg(0), false, nil)
}

// fcgiAddress takes the path of the scripts off the address of a FastCGI
// server.
func fcgiAddress(target string) string {
	rest, ok := strings.CutPrefix(target, "fcgi://")
	if !ok {
		return target
	}
	host, _, _ := strings.Cut(rest, "/")
	return "fcgi://" + host
}

// rewriteGuard returns the guard of a RewriteRule that refuses requests.
func (c *converter) rewriteGuard(s *site, st *step, r rewriteRule, stops []*step) []guard {
	forbids := r.flags["f"] != "" || r.flags["g"] != ""
	if r.idle() {
		st.gone = true
		return nil
	}
	when := c.condition(st)
	if holds, known := c.settled(when); known && !holds {
		st.gone = true
		return nil
	}
	if !forbids {
		if c.fallback(s, st, r) {
			return nil
		}
		_, caddy := c.condLines(st)
		_, target := targetOf(r, "")
		if caddy && target && r.known && readable(r.pattern) && r.flags["p"] == "" {
			return nil // it is written as it is
		}
		switch {
		case r.flags["p"] != "":
			c.notes.add(Closed, st.Directive, "a proxy made by a rewrite has no match; use ProxyPass")
		case !target:
			c.notes.add(Closed, st.Directive, "the target uses what has no match")
		case !r.known:
			c.notes.add(Closed, st.Directive, "%q is no redirect", r.flags["r"])
		default:
			c.notes.add(Changed, st.Directive, "who Apache sends elsewhere is refused here")
		}
	}
	st.gone = true
	g := st.ground()
	unless := c.stopped(st, r, stops)
	out := c.refuse(s, st, g, r.pattern, r.neg, allOf(append([]expr{when}, unless...)))
	if r.flags["g"] != "" {
		return c.answered(st, out, "", http.StatusGone)
	}
	return out
}

// fallback reports whether a rule is only for what is no file: it hides
// nothing, and the usual one, to /index.php, has a match.
func (c *converter) fallback(s *site, st *step, r rewriteRule) bool {
	missing := slices.ContainsFunc(st.conds, func(d *Directive) bool {
		return strings.HasSuffix(strings.ToUpper(d.arg(0)), "_FILENAME}") && d.arg(1) == "!-f" &&
			rewriteFlags(d.arg(2))["or"] == ""
	})
	index := strings.TrimPrefix(r.target, "/")
	toIndex := index == "index.php" || strings.HasPrefix(index, "index.php/") || strings.HasPrefix(index, "index.php?")
	switch {
	case r.code != "" || r.flags["p"] != "":
		return false
	case toIndex && missing:
		s.fallback = true
	case missing:
		c.notes.add(Lost, st.Directive, "only what is no file is rewritten by it: the rule is left out")
	default:
		return false
	}
	st.gone = true
	return true
}

// stopped returns, for each rule before that ends the rewriting, the condition
// that it did not.
func (c *converter) stopped(st *step, r rewriteRule, stops []*step) (out []expr) {
	for _, before := range stops {
		b := before.rule()
		if before.place != st.place || !readable(b.pattern) || apart(b, r) {
			continue
		}
		e := c.condition(before)
		if !everything(b.pattern) || b.neg {
			e = and{pathMatches(b.pattern, b.neg, false), e}
		}
		v := c.vocabulary(apExpr)
		if _, reasons := v.rule(e); len(reasons) == 0 && !v.certificate {
			out = append(out, not{e})
		}
	}
	return out
}

// apart reports whether no path meets the patterns of both rules.
func apart(a, b rewriteRule) bool {
	one, ok := prefixesOf(a)
	two, also := prefixesOf(b)
	if !ok || !also {
		return false
	}
	for _, x := range one {
		for _, y := range two {
			if strings.HasPrefix(x, y) || strings.HasPrefix(y, x) {
				return false
			}
		}
	}
	return true
}

func prefixesOf(r rewriteRule) ([]string, bool) {
	parsed, err := syntax.Parse(strings.TrimSuffix(r.pattern, "$"), syntax.Perl)
	if err != nil || r.neg {
		return nil, false
	}
	return literalPrefixes(parsed.Simplify())
}

// pathMatches is a condition on the path. What refuses by it ignores case, as
// guards do.
func pathMatches(re string, neg, fold bool) expr {
	x := match{l: word{{name: "REQUEST_URI"}}, re: re, fold: fold}
	if neg {
		return not{x}
	}
	return x
}

// refuse returns the guard that refuses all requests for a place when the path
// matches a pattern and a condition, which may be nil, holds. A pattern of the
// whole host becomes the place itself.
func (c *converter) refuse(s *site, st *step, g guard, pattern string, neg bool, when expr) []guard {
	if when == nil {
		when = truth(true)
	}
	switch {
	case !readable(pattern):
		c.notes.add(Closed, st.Directive, "the regular expression uses what RE2 lacks, so all of its place is closed")
	case everything(pattern) && !neg:
	case neg:
		when = and{pathMatches(pattern, true, false), when}
	case st.whole, g.whole() && st.place == nil:
		g.prefix, g.regexp = nil, ""
		g.setRegexp(c, pattern)
	default:
		when = and{pathMatches(pattern, false, true), when}
	}
	c.check(st.Directive, not{when})
	g.depth = s.depth
	if g.ways = c.ways(st.Directive, not{when}, s.asks); g.closed {
		g.ways = closedWays
	}
	if g.ways.all {
		return nil
	}
	return []guard{g}
}

// whole reports whether the guard stands at the whole host.
func (g *guard) whole() bool { return g.regexp == "" && slices.Contains(g.prefix, "/") }
