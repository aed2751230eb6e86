package apache

import (
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// directory returns the guards of a <Directory>, at the paths where the host
// serves it; none if it does not. Of a directory above, what sections between
// it and a root say anew does not count at that root: <Directory /> is Apache's
// default for what is not served.
func (c *converter) directory(s *site, d *Directive, outer around) (out []guard) {
	dir := path.Clean(c.path(d.arg(0)))
	g := guard{at: d}
	for _, a := range s.roots() {
		base := path.Clean(a.dir)
		switch {
		case dir == base:
			g.prefix = append(g.prefix, clean(a.url))
		case dir == "/" || strings.HasPrefix(base, dir+"/"):
			above := guard{at: d, prefix: []string{clean(a.url)}}
			out = append(out, c.inside(s, c.lasting(s, d, base), above, outer)...)
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
	return slices.DeleteFunc(append([]alias{{url: "/", dir: s.docroot}}, s.aliases...), func(a alias) bool { return a.dir == "" })
}

// lasting is a <Directory> section without what the sections between it and a
// directory below say anew. What a module says in one of them takes the place
// of what the same module said outside.
func (c *converter) lasting(s *site, outer *Directive, dir string) *Directive {
	said := map[string]bool{}
	for _, d := range s.sections {
		p := path.Clean(c.path(d.arg(0)))
		if d != outer && d.is("Directory") && p != "/" && (p == dir || strings.HasPrefix(dir, p+"/")) {
			for _, k := range d.Children {
				said[module(k)] = true
			}
		}
	}
	left := *outer
	left.Children = slices.DeleteFunc(slices.Clone(outer.Children), func(k *Directive) bool { return module(k) != "" && said[module(k)] })
	return &left
}

// module names the part of Apache that decides by a directive, where one such
// directive takes the place of another.
func module(d *Directive) string {
	switch name := strings.ToLower(d.Name); {
	case strings.HasPrefix(name, "require"):
		return "authz"
	case name == "order", name == "allow", name == "deny":
		return "access"
	case name == "sslverifyclient":
		return name
	}
	return ""
}

// directoryGlob returns the guards of a <Directory> with wild cards, which do
// not reach over a slash.
func (c *converter) directoryGlob(s *site, d *Directive, outer around) (out []guard) {
	glob := strings.Split(path.Clean(c.path(d.arg(0))), "/")
	for _, a := range s.roots() {
		base := path.Clean(a.dir)
		names := strings.Split(base, "/")
		n := min(len(glob), len(names))
		above, err := regexp.MatchString(globRegexp(strings.Join(glob[:n], "/"), false, true), strings.Join(names[:n], "/"))
		switch {
		case err != nil:
			return c.unplaced(s, d, "the pattern can't be read")
		case !above: // not reachable through this root
		case len(glob) < len(names):
			out = append(out, c.inside(s, c.lasting(s, d, base), guard{at: d, prefix: []string{clean(a.url)}}, outer)...)
		case len(glob) == len(names):
			out = append(out, c.inside(s, d, guard{at: d, prefix: []string{clean(a.url)}}, outer)...)
		default:
			rest := strings.TrimSuffix(strings.TrimPrefix(globRegexp("/"+strings.Join(glob[n:], "/"), false, true), "^"), "$")
			out = append(out, c.inside(s, d, guard{at: d, regexp: "^" + regexpLiteral(strings.TrimSuffix(a.url, "/")) + rest + "(?:/|$)"}, outer)...)
		}
	}
	return out
}

// directoryMatch returns the guards of a <DirectoryMatch>. Its expression is
// held against the path instead, where it is sure that it can't begin in the
// name of the document root: it begins with letters that the root lacks.
func (c *converter) directoryMatch(s *site, d *Directive, outer around, re string) []guard {
	const why = "a directory pattern can't be mapped to the paths it is served at"
	parsed, err := syntax.Parse(re, syntax.Perl)
	if err != nil || anchors(parsed, syntax.OpBeginText)+anchors(parsed, syntax.OpEndText) > 0 && !strings.HasSuffix(re, "$") || anchors(parsed, syntax.OpBeginText) > 0 {
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
	return c.inside(s, d, guard{at: d, regexp: re}, outer)
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
