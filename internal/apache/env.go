package apache

import (
	"slices"
	"strings"
)

// setsEnv are directives that set a variable before Apache asks who may pass.
var setsEnv = set(`SetEnvIf SetEnvIfNoCase SetEnvIfExpr BrowserMatch BrowserMatchNoCase`)

// fromEnv is the condition that a variable is set ("env=NAME", "env=!NAME"), by
// the lines of the host and then of the place. It is nil where that can't be
// determined: nothing here sets it, something else does too, or a test has no match.
func (c *converter) fromEnv(name string) expr {
	name, neg := strings.CutPrefix(name, "!")
	lines := slices.DeleteFunc(slices.Concat(c.site.env, c.env), func(d *Directive) bool {
		return len(d.assigns(name)) == 0
	})
	if len(lines) == 0 || c.site.setElsewhere(name, lines) {
		return nil
	}
	var e expr = truth(false)
	for _, d := range lines {
		test := envTest(d)
		if test == nil {
			return nil
		}
		for _, sets := range d.assigns(name) {
			if sets {
				e = or{e, test}
			} else {
				e = and{e, not{test}}
			}
		}
	}
	if neg {
		return not{e}
	}
	return e
}

// assigns says what a directive does to a variable when its test holds: for
// each time that it names it, whether it sets it or removes it.
func (d *Directive) assigns(name string) (sets []bool) {
	first := 1
	switch strings.ToLower(d.Name) {
	case "setenvif", "setenvifnocase":
		first = 2
	}
	for _, a := range d.Args[min(first, len(d.Args)):] {
		a, _, _ = strings.Cut(a, "=")
		a, away := strings.CutPrefix(a, "!")
		if strings.EqualFold(a, name) {
			sets = append(sets, !away)
		}
	}
	return sets
}

// setElsewhere reports whether a variable is also set by something else than
// some lines: in other places of the host, or by a rewrite.
func (s *site) setElsewhere(name string, lines []*Directive) bool {
	var sets func(d *Directive) bool
	sets = func(d *Directive) bool {
		switch {
		case d.is("RewriteRule"):
			return strings.Contains(strings.ToLower(d.arg(2)), strings.ToLower(name))
		case setsEnv[strings.ToLower(d.Name)]:
			return len(d.assigns(name)) > 0 && !slices.Contains(lines, d)
		}
		return slices.ContainsFunc(d.Children, sets)
	}
	return slices.ContainsFunc(s.sections, sets) || slices.ContainsFunc(s.steps, func(st step) bool {
		return sets(st.Directive)
	})
}

// envTest is the test of a line that sets a variable; nil if it has no match.
func envTest(d *Directive) expr {
	name, noCase := strings.CutSuffix(strings.ToLower(d.Name), "nocase")
	switch name {
	case "setenvifexpr":
		e, err := parseExpr(d.arg(0), apExpr)
		if err != nil {
			return nil
		}
		return e
	case "browsermatch":
		return match{l: word{{name: "HTTP_USER_AGENT"}}, re: d.arg(0), fold: noCase}
	}
	of := envAttribute(d.arg(0))
	if of == "" {
		return nil
	}
	return match{l: word{{name: of}}, re: d.arg(1), fold: noCase}
}

// headers are names of request headers that no module gives to a variable.
var headers = set(`Accept Authorization Cookie Forwarded From Origin Range Referer Upgrade Via`)

// envAttribute names what a SetEnvIf looks at; "" is what has no match, as a
// variable that a module of Apache's may have set, or a path, in which
// refusing is not the same as admitting.
func envAttribute(of string) string {
	switch name := strings.ToLower(of); name {
	case "remote_addr", "request_method":
		return strings.ToUpper(name)
	case "request_protocol":
		return "SERVER_PROTOCOL"
	case "host":
		return "HTTP_HOST"
	default:
		letters := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
		if headers[name] || letters && strings.Contains(name, "-") {
			return "HTTP:" + name
		}
		return ""
	}
}
