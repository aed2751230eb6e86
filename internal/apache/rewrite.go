package apache

import (
	"fmt"
	"net/http"
	"regexp/syntax"
	"strconv"
	"strings"
)

// step is a directive that answers or passes on a request.
type step struct {
	*Directive
	place *guard       // the section that it stands in; nil is the whole host
	when  expr         // the condition of the section; nil is always
	conds []*Directive // the RewriteConds before a RewriteRule
	whole bool         // its pattern says the place, too
	gone  bool         // it has become a guard, or nothing
}

// steps writes redirects, rewrites and headers; what keeps people out has
// become a guard before.
func (c *converter) steps(s *site) {
	for i := range s.steps {
		st := &s.steps[i]
		if st.gone {
			continue
		}
		switch strings.ToLower(st.Name) {
		case "redirect", "redirectpermanent", "redirecttemp", "redirectmatch":
			c.redirect(st)
		case "rewriterule":
			c.rewrite(st)
		case "header":
			c.header(st, "header")
		case "requestheader":
			c.header(st, "request_header")
		case "errordocument":
			c.notes.add(Lost, st.Directive, "errors are answered with Caddy's and Postern's own pages")
		}
	}
}

var redirectCode = map[string]string{
	"permanent": "permanent", "temp": "temporary", "seeother": "303",
	"301": "permanent", "302": "temporary", "303": "303", "307": "307", "308": "308",
}

// redirection is what a Redirect or RedirectMatch says.
type redirection struct {
	code   string // as Caddy writes it; "" is an answer that shows nothing
	status int    // of that answer; 0 is one that Postern does not give
	from   string // path or expression; "" is all of the section
	target string
}

// redirection reads a Redirect or RedirectMatch. It reports false for one that
// Apache would not start with.
func (st *step) redirection() (r redirection, ok bool) {
	args := st.Args
	r.code = "temporary"
	if st.is("RedirectPermanent") {
		r.code = "permanent"
	}
	plain := st.is("RedirectPermanent") || st.is("RedirectTemp")
	if len(args) > 0 && !plain {
		first := strings.ToLower(args[0])
		named, known := redirectCode[first]
		if known || first == "gone" || len(first) == 3 && strings.Trim(first, "0123456789") == "" {
			r.code, r.status, args = named, errorStatus(first), args[1:]
		}
	}
	switch {
	case r.code == "" && len(args) <= 1:
		if len(args) == 1 {
			r.from = args[0]
		}
		return r, true
	case r.code == "" && len(args) == 2: // a status that Caddy has no redirect for
		r.from = args[0]
		return r, true
	case len(args) == 2:
		r.from, r.target = args[0], args[1]
		return r, true
	case len(args) == 1 && st.place != nil:
		r.target = args[0]
		return r, !st.is("RedirectMatch")
	}
	return r, false
}

// errorStatus is the status of an error as a Redirect names it; 0 is none.
func errorStatus(name string) int {
	if name == "gone" {
		return http.StatusGone
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 400 && n <= 599 {
		return n
	}
	return 0
}

// redirect writes Redirect, which keeps what comes behind the prefix, and
// RedirectMatch.
func (c *converter) redirect(st *step) {
	r, ok := st.redirection()
	if !ok {
		c.notes.add(Lost, st.Directive, "a redirect needs a place and a target")
		return
	}
	m, lines, to := c.matcher(), st.lines(), r.target
	switch {
	case st.is("RedirectMatch"):
		lines = append([]string{"path_regexp " + m + " " + token(r.from)}, lines...)
		to = substitute(to, m, "{?query}")
	case r.from != "":
		re := "^" + regexpLiteral(strings.TrimSuffix(r.from, "/")) + "(/.*)?$"
		if r.from == "/" {
			re = "^/(.*)$"
		}
		lines = append([]string{"path_regexp " + m + " " + token(re)}, lines...)
		to += "{re." + m + ".1}{?query}"
	}
	c.write(m, lines, "redir @%s "+token(to)+" "+r.code)
}

// lines are what a matcher says of the section that a step stands in.
func (st *step) lines() []string {
	switch {
	case st.place == nil || st.whole || st.place.whole():
		return nil
	case st.place.regexp != "":
		return []string{"path_regexp " + token(st.place.regexp)}
	}
	var list []string
	for _, p := range st.place.prefix {
		list = append(list, token(p+"*"))
	}
	return []string{"path " + strings.Join(list, " ")}
}

// write writes a step behind a named matcher. Each matcher of Caddy's says
// itself only once in a set: further ones are put as "not not".
func (c *converter) write(m string, lines []string, step string) {
	if len(lines) == 0 {
		fmt.Fprintf(&c.out, "\t%s\n", strings.Replace(step, "@%s", "*", 1))
		return
	}
	used := map[string]bool{"not": false}
	for i, l := range lines {
		kind, _, _ := strings.Cut(l, " ")
		if used[kind] {
			lines[i] = "not {\n\t\t\tnot " + l + "\n\t\t}"
		}
		used[kind] = kind != "not"
	}
	set := strings.Join(lines, "\n\t\t")
	if len(lines) > 1 {
		set = "{\n\t\t" + set + "\n\t}"
	}
	fmt.Fprintf(&c.out, "\t@%s %s\n\t%s\n", m, set, fmt.Sprintf(step, m))
}

// readable reports whether an expression is one that RE2 can read.
func readable(re string) bool {
	_, err := syntax.Parse(re, syntax.Perl)
	return err == nil
}

// everything reports whether a pattern matches each path.
func everything(pattern string) bool {
	switch strings.NewReplacer("(", "", ")", "").Replace(pattern) {
	case "", "^", ".*", "^.*", "^.*$", ".*$", "^/", "^/.*", "^/.*$", "/", "^/?.*", "^/?.*$":
		return true
	}
	return false
}

// rewrite writes one RewriteRule, with the conditions before it.
func (c *converter) rewrite(st *step) {
	r := st.rule()
	m := c.matcher()
	var lines []string
	switch {
	case everything(r.pattern) && !strings.Contains(r.target, "$") && !r.neg:
	case r.neg:
		lines = append(lines, "not path_regexp "+token(r.pattern))
	default:
		lines = append(lines, "path_regexp "+m+" "+token(r.pattern))
	}
	conds, _ := c.condLines(st)
	lines = append(append(lines, st.lines()...), conds...)
	to, _ := targetOf(r, m)
	if r.code == "" {
		c.write(m, lines, "rewrite @%s "+token(to))
		return
	}
	if !strings.Contains(r.target, "?") && r.flags["qsd"] == "" {
		to += "{?query}"
	}
	c.write(m, lines, "redir @%s "+token(to)+" "+r.code)
}

// targetOf writes a rule's target with Caddy's names in it, and reports
// whether it has a match.
func targetOf(r rewriteRule, m string) (string, bool) {
	to := substitute(r.target, m, "")
	if strings.Contains(to, "%") {
		if to = serverVariables(to); to == "" {
			return "", false
		}
	}
	return to, !strings.Contains(to, "${")
}

// rewriteRule is what a RewriteRule says.
type rewriteRule struct {
	pattern string // with its flag for case in it
	neg     bool   // it applies where the pattern does not match
	target  string
	flags   map[string]string
	code    string // of a redirect, as Caddy writes it; "" is none
	known   bool   // Caddy has this redirect
}

func (st *step) rule() rewriteRule {
	r := rewriteRule{target: st.arg(1), flags: rewriteFlags(st.arg(2)), known: true}
	r.pattern, r.neg = strings.CutPrefix(st.arg(0), "!")
	if r.flags["nc"] != "" {
		r.pattern = "(?i)" + r.pattern
	}
	code := strings.ToLower(r.flags["r"])
	if code != "" || strings.Contains(r.target, "://") && r.flags["p"] == "" {
		if code == "" || code == "1" {
			code = "temp"
		}
		r.code, r.known = redirectCode[code]
	}
	return r
}

// stops reports whether a rule ends the rewriting and leaves the path alone.
func (r rewriteRule) stops() bool {
	return r.idle() && (r.flags["l"] != "" || r.flags["end"] != "")
}

// idle reports whether a rule changes nothing of who gets what.
func (r rewriteRule) idle() bool {
	return r.target == "-" && r.flags["f"] == "" && r.flags["g"] == "" && r.flags["r"] == "" && r.flags["p"] == ""
}

// rewriteFlags reads [L,R=permanent,NC].
func rewriteFlags(s string) map[string]string {
	m := map[string]string{}
	long := map[string]string{
		"redirect": "r", "forbidden": "f", "gone": "g", "nocase": "nc", "proxy": "p", "qsdiscard": "qsd",
		"last": "l", "ornext": "or", "chain": "c", "skip": "s",
	}
	for f := range strings.SplitSeq(strings.Trim(s, "[] "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(f), "=")
		name = strings.ToLower(name)
		if l, ok := long[name]; ok {
			name = l
		}
		if value == "" {
			value = "1"
		}
		m[name] = value
	}
	return m
}

// substitute puts Caddy's names for $1 to $9 into a target.
func substitute(target, m, tail string) string {
	var b strings.Builder
	for i := 0; i < len(target); i++ {
		switch {
		case target[i] == '$' && i+1 < len(target) && isDigit(target[i+1]):
			fmt.Fprintf(&b, "{re.%s.%c}", m, target[i+1])
			i++
		case target[i] == '\\' && i+1 < len(target):
			i++
			b.WriteByte(target[i])
		default:
			b.WriteByte(target[i])
		}
	}
	if strings.Contains(target, "?") {
		return b.String()
	}
	return b.String() + tail
}

// serverVariables puts Caddy's placeholders for the variables of a target, or
// returns "" if there is none.
func serverVariables(s string) string {
	s = strings.NewReplacer("%{HTTP_HOST}", "{host}", "%{SERVER_NAME}", "{host}", "%{REQUEST_URI}", "{path}",
		"%{QUERY_STRING}", "{query}", "%{REQUEST_SCHEME}", "{scheme}").Replace(s)
	if strings.Contains(s, "%") {
		return ""
	}
	return s
}

// header writes Header and RequestHeader.
func (c *converter) header(st *step, to string) {
	args := st.Args
	if len(args) > 0 && (strings.EqualFold(args[0], "always") || strings.EqualFold(args[0], "onsuccess")) {
		args = args[1:]
	}
	line := ""
	switch {
	case st.when != nil:
		c.notes.add(Lost, st.Directive, "under a condition this has no match in Postern")
		return
	case len(args) == 3 && strings.Contains(args[2], "%"):
		c.notes.add(Lost, st.Directive,
			"a value with variables in it has no match, but for what it says of the client's certificate")
		return
	case len(args) == 3 && strings.EqualFold(args[0], "set"):
		line = token(args[1]) + " " + token(args[2])
	case len(args) == 3 && (strings.EqualFold(args[0], "append") || strings.EqualFold(args[0], "add")):
		line = "+" + token(args[1]) + " " + token(args[2])
	case len(args) == 2 && strings.EqualFold(args[0], "unset"):
		line = "-" + token(args[1])
	default:
		c.notes.add(Lost, st.Directive, "this form has no match in Postern")
		return
	}
	lines := st.lines()
	if len(lines) == 0 {
		fmt.Fprintf(&c.out, "\t%s %s\n", to, line)
		return
	}
	c.write(c.matcher(), lines, to+" @%s "+strings.ReplaceAll(line, "%", "%%"))
}
