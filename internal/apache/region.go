package apache

import (
	"net/http"
	"slices"
	"strings"
)

// region is where a section applies, with what it says there about who may
// pass. Apache merges the sections of a request in the order of their ranks: what
// a later one says by one of its modules takes the place of what the same module
// said before.
type region struct {
	guard
	rank   int
	byFile bool // the place is given by the names of files, which a path does not show for sure
	when   expr // the condition that it is under; nil is always
	policy policy
}

// The ranks, as "How the sections are merged" of Apache's documentation lists
// them. Directories are merged from the shortest to the longest.
const (
	rankHost           = 0
	rankDirectory      = 1
	rankDirectoryMatch = 1000
	rankFiles          = 2000
	rankLocation       = 3000
	rankIf             = 4000
)

// directoryRank is that of a directory.
func directoryRank(dir string) int {
	return min(rankDirectory+strings.Count(strings.TrimSuffix(dir, "/"), "/"), rankDirectoryMatch-1)
}

// guards returns what the host and its sections ask, in the order in which they
// are merged, and then what its redirects and rewrites forbid.
func (c *converter) guards(s *site) []guard {
	s.oneline = legacyDNs(s.policy)
	s.asks = asksAnywhere(s.policy) || asksAnywhere(s.sections)
	host := region{
		guard: guard{at: first(s.policy, s.at), prefix: []string{"/"}}, rank: rankHost,
		policy: c.policy(s, s.policy),
	}
	if v := &host.policy.says[byVerify]; *v != nil { // the handshake asks: no section takes that back
		host.policy.adds, *v = append(host.policy.adds, *v), nil
	}
	regions := []region{host}
	regions = append(regions, c.sections(s, s.sections, around{depth: s.depth})...)
	slices.SortStableFunc(regions, func(a, b region) int { return a.rank - b.rank })
	var out []guard
	for i := range regions {
		if g, ok := c.guarded(s, regions, i); ok {
			out = append(out, g)
		}
	}
	return append(append(out, c.stepGuards(s)...), c.tellGuards(s)...)
}

// asksAnywhere reports whether a client is asked for a certificate anywhere.
func asksAnywhere(list []*Directive) bool {
	return slices.ContainsFunc(list, func(d *Directive) bool {
		return d.is("SSLVerifyClient") && !strings.EqualFold(d.arg(0), "none") || asksAnywhere(d.Children)
	})
}

// guarded returns the guard of a region: all that its section adds, and what it
// says anew but for the places where a later one does.
func (c *converter) guarded(s *site, regions []region, i int) (guard, bool) {
	r := &regions[i]
	g := r.guard
	g.depth = r.policy.depth
	if r.policy.closed || g.closed {
		g.ways = closedWays
		return g, true
	}
	var all []expr
	for _, e := range r.policy.adds {
		all = append(all, implied(r.when, e))
	}
	for m, e := range r.policy.says {
		if e == nil {
			continue
		}
		some := []expr{implied(r.when, e)}
		for j := i + 1; j < len(regions); j++ {
			some = append(some, c.replaced(&regions[j], r, module(m), e))
		}
		all = append(all, anyOf(some))
	}
	if len(all) == 1 && r.policy.says[byMethods] != nil {
		g.status = http.StatusMethodNotAllowed
	}
	asked := slices.ContainsFunc(regions, func(o region) bool { return o.policy.asks && !o.apart(r) })
	g.ways = c.ways(r.at, allOf(all), asked)
	if s.ocsp != nil && g.ways.certify {
		c.notes.add(Closed, s.ocsp,
			"Postern asks no OCSP responder whether a foreign certificate is revoked; use SSLCARevocationFile")
		g.ways = closedWays
	}
	return g, !g.ways.all
}

// implied is a condition that applies only where another holds.
func implied(when, e expr) expr {
	if when == nil {
		return e
	}
	return or{not{when}, e}
}

// replaced is the condition that a request is where a later section takes over
// what an earlier one says by one module.
func (c *converter) replaced(later, earlier *region, m module, e expr) expr {
	where, said := later.policy.takesOver(m), later.policy.says[m]
	switch {
	case where == nil, later.apart(earlier), c.constant(e) == 't':
		return truth(false)
	case said != nil && c.constant(said) == 'f': // it refuses by itself
		return truth(false)
	case later.byFile, later.closed:
		c.notes.add(Narrowed, later.at, "what is asked around this place is asked here, too")
		return truth(false)
	case said == nil && c.constant(where) != 't':
		c.notes.add(Narrowed, later.at, "who meets what is asked around this place is asked for the address here, too")
	}
	if !later.covers(earlier) {
		where = and{later.under(), where}
	}
	if later.when != nil {
		where = and{where, later.when}
	}
	return where
}

// under is the condition that a request's path is in the place, as Apache
// decides it: a prefix ends at a segment.
func (g *guard) under() expr {
	switch {
	case g.regexp != "":
		return pathMatches(g.regexp, false, false)
	case g.whole():
		return truth(true)
	}
	var alts []string
	for _, p := range g.prefix {
		dir, slash := strings.CutSuffix(p, "/")
		if slash {
			alts = append(alts, regexpLiteral(dir)+"/")
		} else {
			alts = append(alts, regexpLiteral(p)+"(?:/|$)")
		}
	}
	if len(alts) == 1 {
		return pathMatches("^"+alts[0], false, false)
	}
	return pathMatches("^(?:"+strings.Join(alts, "|")+")", false, false)
}

// apart reports whether no path is in both places.
func (g *guard) apart(o *region) bool {
	if g.regexp != "" || o.regexp != "" {
		return false
	}
	return !slices.ContainsFunc(g.prefix, func(p string) bool {
		return slices.ContainsFunc(o.prefix, func(q string) bool {
			return strings.HasPrefix(p, q) || strings.HasPrefix(q, p)
		})
	})
}

// covers reports whether each path in another place is in this one, too.
func (g *guard) covers(o *region) bool {
	if g.regexp != "" || o.regexp != "" {
		return g.whole()
	}
	return !slices.ContainsFunc(o.prefix, func(q string) bool {
		return !slices.ContainsFunc(g.prefix, func(p string) bool {
			return p == "/" || p == q || strings.HasPrefix(q, strings.TrimSuffix(p, "/")+"/")
		})
	})
}
