package apache

import (
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// directory returns the regions of a <Directory>, at the paths where the host
// serves it; none if it does not.
func (c *converter) directory(s *site, d *Directive, outer around) (out []region) {
	dir := path.Clean(c.path(d.arg(0)))
	g := region{guard: guard{at: d}, rank: directoryRank(dir)}
	for _, a := range s.roots() {
		base := path.Clean(a.dir)
		switch {
		case dir == base:
			g.prefix = append(g.prefix, clean(a.url))
		case dir == "/" || strings.HasPrefix(base, dir+"/"):
			above := region{guard: guard{at: d, prefix: []string{clean(a.url)}}, rank: g.rank}
			out = append(out, c.inside(s, d, above, outer)...)
		case strings.HasPrefix(dir, base+"/"):
			g.prefix = append(g.prefix, clean(path.Join(a.url, strings.TrimPrefix(dir, base))))
		}
	}
	if len(g.prefix) > 0 {
		out = append(out, c.inside(s, d, g, outer)...)
	}
	return out
}

// roots are the document root and the aliases, where they are set.
func (s *site) roots() []alias {
	return slices.DeleteFunc(append([]alias{{url: "/", dir: s.docroot}}, s.aliases...), func(a alias) bool {
		return a.dir == ""
	})
}

// directoryGlob returns the regions of a <Directory> with wild cards, which do
// not reach over a slash.
func (c *converter) directoryGlob(s *site, d *Directive, outer around) (out []region) {
	dir := path.Clean(c.path(d.arg(0)))
	glob := strings.Split(dir, "/")
	for _, a := range s.roots() {
		base := path.Clean(a.dir)
		names := strings.Split(base, "/")
		n := min(len(glob), len(names))
		above, err := regexp.MatchString(globRegexp(strings.Join(glob[:n], "/"), false, true),
			strings.Join(names[:n], "/"))
		switch {
		case err != nil:
			return c.unplaced(s, d, "the pattern can't be read")
		case !above: // not reachable through this root
		case len(glob) <= len(names):
			out = append(out, c.inside(s, d, region{
				guard: guard{at: d, prefix: []string{clean(a.url)}},
				rank:  directoryRank(dir),
			}, outer)...)
		default:
			rest := strings.TrimSuffix(strings.TrimPrefix(globRegexp("/"+strings.Join(glob[n:], "/"), false, true),
				"^"), "$")
			re := "^" + regexpLiteral(strings.TrimSuffix(a.url, "/")) + rest + "(?:/|$)"
			out = append(out, c.inside(s, d, region{
				guard: guard{at: d, regexp: re}, rank: directoryRank(dir),
				byFile: true,
			}, outer)...)
		}
	}
	return out
}

// directoryMatch returns the regions of a <DirectoryMatch>. Its expression is
// held against the path instead, where it is sure that it can't begin in the
// name of the document root: it begins with letters that the root lacks.
func (c *converter) directoryMatch(s *site, d *Directive, outer around, re string) []region {
	const why = "a directory pattern can't be mapped to the paths it is served at"
	parsed, err := syntax.Parse(re, syntax.Perl)
	if err != nil || anchors(parsed, syntax.OpBeginText)+anchors(parsed, syntax.OpEndText) > 0 &&
		!strings.HasSuffix(re, "$") || anchors(parsed, syntax.OpBeginText) > 0 {
		return c.unplaced(s, d, why)
	}
	compiled, err := regexp.Compile(re)
	if err != nil {
		return c.unplaced(s, d, why)
	}
	lead, _ := compiled.LiteralPrefix()
	for _, a := range s.roots() {
		if len(lead) < 2 || lead[0] != '/' || strings.Contains(path.Clean(a.dir)+"/", lead) {
			return c.unplaced(s, d, why)
		}
	}
	if body, end := strings.CutSuffix(re, "$"); end && !strings.HasSuffix(body, `\`) {
		re = body + "(?:/|$)"
	}
	return c.inside(s, d, region{guard: guard{at: d, regexp: re}, rank: rankDirectoryMatch, byFile: true}, outer)
}

// anchors counts how often an operation stands in an expression.
func anchors(re *syntax.Regexp, op syntax.Op) int {
	n := 0
	if re.Op == op {
		n++
	}
	for _, sub := range re.Sub {
		n += anchors(sub, op)
	}
	return n
}
