package apache

import (
	"cmp"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// around is what stands around a section.
type around struct {
	depth  string // SSLVerifyDepth in force
	within *guard // the place that a section is restricted to; nil is the host
	when   expr   // the condition that it is under; nil is always
}

// section returns the regions of one section and of those inside it.
func (c *converter) section(s *site, d *Directive, outer around) []region {
	g := region{guard: guard{at: d}, rank: rankLocation}
	switch strings.ToLower(d.Name) {
	case "location":
		if d.arg(0) == "~" {
			g.setRegexp(c, d.arg(1))
		} else {
			g.setLocation(c, d.arg(0))
		}
	case "locationmatch":
		g.setRegexp(c, d.arg(0))
	case "directory":
		if d.arg(0) == "~" {
			return c.directoryMatch(s, d, outer, d.arg(1))
		}
		if strings.ContainsAny(d.arg(0), "*?[") {
			return c.directoryGlob(s, d, outer)
		}
		return c.directory(s, d, outer)
	case "directorymatch":
		return c.directoryMatch(s, d, outer, d.arg(0))
	case "files":
		if d.arg(0) == "~" {
			g.setFiles(c, d.arg(1), outer.within)
		} else {
			re := strings.TrimSuffix(strings.TrimPrefix(globRegexp(d.arg(0), false, true), "^"), "$")
			g.setFiles(c, "^"+re+"$", outer.within)
		}
		g.rank, g.byFile = rankFiles, true
	case "filesmatch":
		g.setFiles(c, d.arg(0), outer.within)
		g.rank, g.byFile = rankFiles, true
	case "proxy", "proxymatch":
		g.rank = rankDirectory
		g.prefix, g.regexp = c.proxied(s, d)
		if len(g.prefix) == 0 && g.regexp == "" {
			return nil // who may use the forward proxy, which Postern is not
		}
	case "if", "elseif", "else":
		g.prefix, g.rank = []string{"/"}, rankIf
		if outer.within != nil {
			g.prefix, g.regexp = outer.within.prefix, outer.within.regexp
		}
	default:
		if guardsSomething(d) {
			return c.unplaced(s, d, "this section has no match in Postern")
		}
		if !quiet[strings.ToLower(d.Name)] {
			c.notes.add(Lost, d, "this section has no match in Postern")
		}
		return nil
	}
	return c.inside(s, d, g, outer)
}

// conditions returns the condition of each <If>, <ElseIf> and <Else> in a list of
// sections, that none before it in its chain holds included.
func (c *converter) conditions(list []*Directive) map[*Directive]expr {
	when := make(map[*Directive]expr)
	var before []expr
	for _, d := range list {
		var own expr = truth(true)
		switch {
		case d.is("If"):
			before = nil
			own = c.condition1(d)
		case d.is("ElseIf"):
			own = c.condition1(d)
		case !d.is("Else"):
			continue
		}
		when[d] = own
		if len(before) > 0 {
			when[d] = and{not{anyOf(before)}, own}
		}
		before = append(before, own)
	}
	return when
}

// condition1 reads the condition of an <If>. One that can't be read holds where it
// refuses, and not where it lets pass.
func (c *converter) condition1(d *Directive) expr {
	raw := d.Raw
	if len(d.Args) == 1 {
		raw = d.Args[0]
	}
	e, err := parseExpr(raw, apExpr)
	if err != nil {
		c.notes.add(Closed, d, "can't be read, and is taken to hold: %v", err)
		return never{}
	}
	c.check(d, e)
	return e
}

// inside returns the regions of a section whose place is known, and of those
// inside it.
func (c *converter) inside(s *site, d *Directive, g region, outer around) []region {
	var own, inner, answers []*Directive
	for _, k := range d.Children {
		switch name := strings.ToLower(k.Name); {
		case access[name], setsEnv[name]:
			own = append(own, k)
		case k.Section:
			inner = append(inner, k)
		case name == "proxypassmatch", name == "proxypass" && !plainLocation(d):
			if k.arg(len(k.Args)-1) != "!" {
				c.notes.add(Closed, k, "a proxy by pattern has no match; use ProxyPass")
				own = append(own, denied(k))
			}
		case steps[name]:
			answers = append(answers, k)
		case noScripts(k):
			own = append(own, k)
		case name == "rewriteengine" || name == "rewritebase" || name == "sethandler" || name == "addhandler" ||
			name == "allowoverride" || name == "options":
		case !quiet[name]:
			c.unknown(k, &own)
		}
	}
	g.when = outer.when
	g.policy = c.policy(s, own)
	g.policy.depth = cmp.Or(g.policy.depth, outer.depth)
	out := []region{g}
	for _, k := range own {
		if noScripts(k) {
			out = append(out, c.noScripts(k, g))
		}
	}
	c.lift(s, d, g.guard, outer.when, answers)
	return append(out, c.sections(s, inner, around{depth: g.policy.depth, within: &g.guard, when: outer.when})...)
}

// sections returns the regions of several sections, of which conditions make
// chains.
func (c *converter) sections(s *site, list []*Directive, outer around) (out []region) {
	when := c.conditions(list)
	for _, d := range list {
		in := outer
		if w, ok := when[d]; ok && outer.when != nil {
			in.when = and{outer.when, w}
		} else if ok {
			in.when = w
		}
		out = append(out, c.section(s, d, in)...)
	}
	return out
}

// unknown notes a directive inside a section that has no match. One by which a
// module that we do not know may keep people out closes its place.
func (c *converter) unknown(k *Directive, own *[]*Directive) {
	if k.is("Use") || firewall(k) {
		c.notes.add(Closed, k, "it may keep people out, and has no match in Postern")
		*own = append(*own, denied(k))
		return
	}
	c.notes.add(Lost, k, "has no match in Postern and is left out")
}

// firewall reports whether a directive of ModSecurity may keep people out.
func firewall(k *Directive) bool {
	return strings.HasPrefix(strings.ToLower(k.Name), "sec") && strings.Contains(k.Raw, ",") &&
		(strings.Contains(k.Raw, "deny") || strings.Contains(k.Raw, "drop") || strings.Contains(k.Raw, "block"))
}

// denied closes the place where a directive stands.
func denied(at *Directive) *Directive {
	return &Directive{
		Name: "Require", Args: []string{"all", "denied"}, Raw: "all denied", File: at.File,
		Line: at.Line,
	}
}

// plainLocation reports whether a section is a <Location> that names a path.
func plainLocation(d *Directive) bool {
	return d.is("Location") && strings.HasPrefix(d.arg(0), "/") && !strings.ContainsAny(d.arg(0), "*?[")
}

// unplaced closes the whole site for a section that guards something no rule
// can point at, and leaves it out when it guards nothing.
func (c *converter) unplaced(s *site, d *Directive, why string) []region {
	if !guardsSomething(d) {
		c.notes.add(Lost, d, "%s; it guards nothing, and is left out", why)
		return nil
	}
	c.notes.add(Closed, d, "%s, so the whole site is closed", why)
	return []region{{guard: guard{at: d, prefix: []string{"/"}, closed: true}, rank: rankIf}}
}

// guardsSomething reports whether anything in the section refuses requests.
func guardsSomething(d *Directive) bool { return slices.ContainsFunc(d.Children, keepsOut) }

// keepsOut reports whether a directive or section may refuse requests.
func keepsOut(k *Directive) bool {
	switch name := strings.ToLower(k.Name); name {
	case "ssloptions", "authname", "authtype", "authuserfile", "authgroupfile", "authbasicprovider",
		"authdigestprovider", "authmerging", "sslusername", "sslverifydepth":
		return false
	case "require":
		return !strings.EqualFold(k.arg(0), "all") || !strings.EqualFold(k.arg(1), "granted")
	case "rewriterule":
		return !(&step{Directive: k}).rule().idle()
	case "redirect", "redirectmatch", "redirectpermanent", "redirecttemp", "use", "allowmethods":
		return true
	default:
		return access[name] || k.Section && guardsSomething(k) || noScripts(k)
	}
}

// proxied returns the place of a <Proxy> section: where this host passes
// requests on to what the section names.
func (c *converter) proxied(s *site, d *Directive) (prefix []string, re string) {
	if !guardsSomething(d) {
		return nil, ""
	}
	name := d.arg(0)
	all := d.is("ProxyMatch") || name == "~" || strings.ContainsAny(name, "*?[")
	for _, st := range s.steps {
		if st.is("ProxyPass") && st.arg(1) != "!" && (all || strings.HasPrefix(st.arg(1), name)) {
			prefix = append(prefix, clean(st.arg(0)))
		}
	}
	switch fcgi := strings.HasPrefix(name, "fcgi:") || strings.HasPrefix(name, "unix:"); {
	case s.php == "" || !all && !fcgi:
	case len(prefix) > 0:
		return []string{"/"}, ""
	default:
		return nil, scripts
	}
	return prefix, ""
}

// scripts is an expression for the paths of PHP's scripts.
const scripts = `/[^/]*\.(?:php[0-9]?|phtml|phar)(?:/|$)`

// noScripts reports whether a directive takes PHP away from a place, as one
// does where visitors may put files.
func noScripts(d *Directive) bool {
	off := map[string]bool{"off": true, "0": true, "no": true, "false": true}
	php := strings.Contains(strings.ToLower(d.Raw), "php") || strings.Contains(strings.ToLower(d.Raw), "phtml")
	switch strings.ToLower(d.Name) {
	case "php_flag", "php_admin_flag", "php_value", "php_admin_value":
		return strings.EqualFold(d.arg(0), "engine") && off[strings.ToLower(d.arg(1))]
	case "removehandler", "removetype":
		return php
	case "sethandler":
		return strings.EqualFold(d.arg(0), "none") || strings.EqualFold(d.arg(0), "default-handler")
	case "addtype", "addhandler", "forcetype":
		return php && (strings.HasPrefix(d.arg(0), "text/") || strings.EqualFold(d.arg(0), "default-handler")) ||
			strings.EqualFold(d.arg(0), "text/plain") && d.is("ForceType")
	}
	return false
}

// noScripts returns the region that closes the scripts of a place.
func (c *converter) noScripts(k *Directive, place region) region {
	c.notes.add(Changed, k, "PHP's scripts are neither run nor shown here")
	g := region{guard: guard{at: k, prefix: place.prefix, regexp: place.regexp}, rank: place.rank, when: place.when}
	if g.regexp == "" && len(g.prefix) > 0 {
		g.regexp, g.prefix = prefixRegexp(g.prefix)+".*"+scripts, nil
		if place.whole() {
			g.regexp = scripts
		}
		g.policy.adds = []expr{truth(false)}
		return g
	}
	g.policy.adds = []expr{not{pathMatches(scripts, false, true)}}
	return g
}

// prefixRegexp is an expression for what begins with one of some prefixes.
func prefixRegexp(prefix []string) string {
	var alts []string
	for _, p := range prefix {
		alts = append(alts, regexp.QuoteMeta(strings.TrimSuffix(p, "/")))
	}
	return "^(?:" + strings.Join(alts, "|") + ")"
}

// lift takes the redirects and rewrites of a section to those of the host.
func (c *converter) lift(s *site, d *Directive, g guard, when expr, answers []*Directive) {
	engine := true
	base := ""
	for _, k := range d.Children {
		engine = engine && (!k.is("RewriteEngine") || strings.EqualFold(k.arg(0), "on"))
		if k.is("RewriteBase") {
			base = k.arg(0)
		}
	}
	var conds []*Directive
	for _, k := range answers {
		switch strings.ToLower(k.Name) {
		case "rewritecond":
			conds = append(conds, k)
		case "rewriterule":
			if engine {
				c.liftRule(s, d, step{Directive: k, place: &g, when: when, conds: conds}, base)
			}
			conds = nil
		case "redirect", "redirectmatch", "redirectpermanent", "redirecttemp":
			s.steps = append(s.steps, step{Directive: k, place: &g, when: when})
		case "requestheader", "header":
			s.steps = append(s.steps, step{Directive: k, place: &g, when: when})
		case "proxypass", "proxypassreverse": // the host's own, by now
		default:
			c.notes.add(Lost, k, "inside a section this has no match in Postern and is left out")
		}
	}
}

// with is the directive with other arguments.
func (d *Directive) with(args []string) *Directive {
	k := *d
	k.Args = args
	return &k
}

// liftRule takes a RewriteRule out of its section. Its pattern looks at what
// comes behind the directory; where that can't be determined it applies to all of
// the section.
func (c *converter) liftRule(s *site, d *Directive, st step, base string) {
	pattern, neg := strings.CutPrefix(st.arg(0), "!")
	if st.rule().idle() || everything(pattern) && !neg && !strings.Contains(st.arg(1), "$") && !relative(st.arg(1)) {
		s.steps = append(s.steps, st)
		return
	}
	if !d.is("Directory") || st.place.regexp != "" || st.when != nil {
		c.notes.add(Closed, st.Directive,
			"what its pattern looks at has no match here; it applies to all of its section")
		st.Directive = st.with([]string{"", st.arg(1), st.arg(2)})
		s.steps = append(s.steps, st)
		return
	}
	for _, u := range st.place.prefix {
		one := st
		one.place = &guard{at: st.place.at, prefix: []string{u}}
		u = strings.TrimSuffix(u, "/") + "/"
		target := st.arg(1)
		if relative(target) {
			if base == "" {
				base = u
			}
			target = strings.TrimSuffix(base, "/") + "/" + target
		}
		full, ok := below(u, pattern, neg || strings.Contains(target, "$"))
		one.whole = !neg
		switch {
		case !ok:
			c.notes.add(Closed, st.Directive,
				"what its pattern looks at has no match here; it applies to all of its section")
			full, one.whole = "", false
		case neg:
			full = "!" + full
		}
		one.Directive = st.with([]string{full, target, st.arg(2)})
		s.steps = append(s.steps, one)
	}
}

// relative reports whether a target is a name in the rule's own directory.
func relative(target string) bool {
	return target != "-" && !strings.HasPrefix(target, "/") && !strings.Contains(target, "://") &&
		!strings.HasPrefix(target, "%{")
}

// below writes a pattern over what comes behind a prefix, which ends in a
// slash, as one over the whole path. It reports false where it can't: where a
// beginning of the text stands deep inside, and the match itself, or where
// there is none, matters.
func below(prefix, pattern string, strict bool) (string, bool) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return pattern, true // its reader closes the place
	}
	root := "^" + regexpLiteral(prefix)
	begins := anchors(parsed, syntax.OpBeginText)
	if rest, ok := strings.CutPrefix(pattern, "^"); ok && begins == 1 && parsed.Op != syntax.OpAlternate {
		return root + rest, true
	}
	switch {
	case begins == 0 && (strings.HasPrefix(pattern, "(.*)") || strings.HasPrefix(pattern, ".*")) &&
		parsed.Op != syntax.OpAlternate:
		return root + pattern, true
	case begins == 0 && prefix == "/" && !strict:
		return pattern, true
	case begins == 0:
		return root + ".*(?:" + pattern + ")", true
	case strict:
		return "", false
	}
	// At the beginning, or further on where the text no longer begins.
	again, _ := syntax.Parse(pattern, syntax.Perl)
	at := beginning(parsed, syntax.OpEmptyMatch).String()
	on := beginning(again, syntax.OpNoMatch).String()
	return root + "(?:" + at + "|.*(?:" + on + "))", true
}

// beginning puts another operation where an expression has the beginning of
// the text.
func beginning(re *syntax.Regexp, op syntax.Op) *syntax.Regexp {
	if re.Op == syntax.OpBeginText {
		return &syntax.Regexp{Op: op}
	}
	for i, sub := range re.Sub {
		re.Sub[i] = beginning(sub, op)
	}
	return re
}
