package apache

import (
	"strings"
)

// A RewriteCond is read twice: as a condition of the gate's, where its rule
// refuses requests, and as a matcher of Caddy's, where its rule only sends
// them elsewhere.

// condGroups returns the conditions of a rule: all of the groups hold, each by
// any of its lines.
func (st *step) condGroups() (groups [][]*Directive) {
	open := false
	for _, d := range st.conds {
		if !open {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], d)
		open = rewriteFlags(d.arg(2))["or"] != ""
	}
	return groups
}

// condition is all that must hold for a step beside its pattern.
func (c *converter) condition(st *step) expr {
	var all []expr
	if st.when != nil {
		all = append(all, st.when)
	}
	for _, group := range st.condGroups() {
		var some []expr
		for _, d := range group {
			some = append(some, c.cond(d))
		}
		all = append(all, anyOf(some))
	}
	return allOf(all)
}

// cond is one RewriteCond as a condition.
func (c *converter) cond(d *Directive) expr {
	test, pattern := d.arg(0), d.arg(1)
	if strings.EqualFold(test, "expr") {
		e, err := parseExpr(pattern, apExpr)
		if err != nil {
			c.notes.add(Closed, d, "can't be read: %v", err)
			return never{}
		}
		return e
	}
	pattern, neg := strings.CutPrefix(pattern, "!")
	x := comparison(condWord(test), pattern, rewriteFlags(d.arg(2))["nc"] != "")
	if neg {
		return not{x}
	}
	return x
}

// comparison holds a text against a RewriteCond's pattern.
func comparison(l word, pattern string, fold bool) expr {
	for _, op := range []string{"-eq", "-ne", "-lt", "-le", "-gt", "-ge"} {
		if n, ok := strings.CutPrefix(pattern, op); ok && n != "" {
			return binary{op, l, word{{lit: strings.TrimSpace(n)}}}
		}
	}
	switch {
	case pattern == `""`:
		return unary{"-z", l}
	case len(pattern) == 2 && pattern[0] == '-':
		return unary{pattern, l} // a test of the server's files
	case strings.HasPrefix(pattern, "<="), strings.HasPrefix(pattern, ">="):
		return binary{pattern[:2], l, word{{lit: pattern[2:]}}}
	case strings.HasPrefix(pattern, "<"), strings.HasPrefix(pattern, ">"):
		return binary{pattern[:1], l, word{{lit: pattern[1:]}}}
	case strings.HasPrefix(pattern, "=") && fold:
		return match{l: l, re: "^" + regexpLiteral(pattern[1:]) + "$", fold: true}
	case strings.HasPrefix(pattern, "="):
		return binary{"==", l, word{{lit: pattern[1:]}}}
	}
	return match{l: l, re: pattern, fold: fold}
}

// condWord reads a RewriteCond's first argument. What an earlier pattern
// matched, $1 or %1, is a variable that has no match.
func condWord(s string) word {
	var w word
	for s != "" {
		i := strings.IndexAny(s, "%$")
		switch {
		case i != 0:
			if i < 0 {
				i = len(s)
			}
			w = append(w, part{lit: s[:i]})
			s = s[i:]
		case strings.HasPrefix(s, "%{") && strings.Contains(s, "}"):
			name, rest, _ := strings.Cut(s[2:], "}")
			w = append(w, part{name: name})
			s = rest
		case len(s) > 1 && (isDigit(s[1]) || s[1] == '{'):
			w = append(w, part{name: s[1:2]})
			s = s[2:]
		default:
			w = append(w, part{lit: s[:1]})
			s = s[1:]
		}
	}
	if len(w) == 0 {
		w = word{{}}
	}
	return w
}

// settled decides conditions that depend on the site alone: whether it speaks HTTPS,
// and at which port.
func (c *converter) settled(e expr) (holds, known bool) {
	v := c.vocabulary(apExpr)
	cel, reasons := v.rule(e)
	return cel == "true", len(reasons) == 0 && !v.certificate && (cel == "true" || cel == "false")
}

// condLines writes a rule's conditions as lines of a matcher, and reports
// whether all of them can be.
func (c *converter) condLines(st *step) (lines []string, ok bool) {
	if st.when != nil {
		return nil, false
	}
	for _, group := range st.condGroups() {
		var some []string
		met := false
		for _, d := range group {
			holds, known := c.settled(c.cond(d))
			met = met || known && holds
			if known {
				continue
			}
			l := matcherLine(d)
			if l == "" {
				return nil, false
			}
			some = append(some, l)
		}
		switch {
		case met:
		case len(some) == 1:
			lines = append(lines, some[0])
		default: // any of them: not (not this and not that)
			lines = append(lines, "not {\n\t\t\tnot "+strings.Join(negations(some), "\n\t\t\tnot ")+"\n\t\t}")
		}
	}
	return lines, true
}

// negations are lines to be put behind a "not".
func negations(lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = l
		if inner, ok := strings.CutPrefix(l, "not "); ok {
			out[i] = "{\n\t\t\t\tnot " + inner + "\n\t\t\t}"
		}
	}
	return out
}

// matcherLine writes a RewriteCond as a line of a matcher; "" if it has no
// match there.
func matcherLine(d *Directive) string {
	pattern, neg := strings.CutPrefix(d.arg(1), "!")
	not := ""
	if neg {
		not = "not "
	}
	test := strings.ToUpper(strings.ReplaceAll(d.arg(0), "%{DOCUMENT_ROOT}/%{REQUEST_URI}", "%{REQUEST_FILENAME}"))
	test = strings.ReplaceAll(test, "%{DOCUMENT_ROOT}%{REQUEST_URI}", "%{REQUEST_FILENAME}")
	if test == "%{REQUEST_FILENAME}" || test == "%{SCRIPT_FILENAME}" {
		return map[string]string{"-f": not + "file", "-d": not + "file {path}/"}[pattern]
	}
	if lit := strings.Trim(strings.TrimPrefix(pattern, "="), "^$()"); test == "%{REQUEST_METHOD}" && lit != "" &&
		strings.Trim(lit, "ABCDEFGHIJKLMNOPQRSTUVWXYZ|") == "" &&
		(strings.HasPrefix(pattern, "=") || strings.HasPrefix(pattern, "^") && strings.HasSuffix(pattern, "$")) {
		return not + "method " + strings.ReplaceAll(lit, "|", " ")
	}
	re := pattern
	switch x := comparison(nil, pattern, false).(type) {
	case match:
	case binary:
		if x.op != "==" {
			return ""
		}
		re = "^" + regexpLiteral(pattern[1:]) + "$"
	case unary:
		if x.op != "-z" {
			return ""
		}
		re = "^$"
	}
	if !readable(re) {
		return ""
	}
	if rewriteFlags(d.arg(2))["nc"] != "" {
		re = "(?i)" + re
	}
	name, variable := strings.CutPrefix(test, "%{")
	name, closed := strings.CutSuffix(name, "}")
	if !variable || !closed || strings.Contains(name, "%") {
		return ""
	}
	if h, ok := strings.CutPrefix(name, "HTTP:"); ok {
		name = "HTTP_" + h
	}
	switch {
	case name == "REQUEST_URI":
		return not + "path_regexp " + token(re)
	case name == "HTTP_HOST", name == "SERVER_NAME":
		return not + "header_regexp Host " + token(re)
	case name == "QUERY_STRING":
		return not + "vars_regexp {query} " + token(re)
	case strings.HasPrefix(name, "HTTP_") && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == "":
		return not + "vars_regexp {header." + strings.ReplaceAll(name[5:], "_", "-") + "} " + token(re)
	}
	return ""
}
