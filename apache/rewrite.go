package apache

import (
	"fmt"
	"regexp/syntax"
	"strings"
)

// steps writes redirects, rewrites, proxies and headers.
func (c *converter) steps(s *site) {
	var conds []*Directive
	for _, d := range s.steps {
		switch strings.ToLower(d.Name) {
		case "redirect", "redirectpermanent", "redirecttemp":
			c.redirect(d)
		case "redirectmatch":
			c.redirectMatch(d)
		case "rewritecond":
			conds = append(conds, d)
		case "rewriterule":
			if s.engine {
				c.rewrite(d, conds)
			}
			conds = nil
		case "header":
			c.header(d, "header")
		case "requestheader":
			c.header(d, "request_header")
		case "errordocument":
			c.notes.add(Lost, d, "errors are answered with Caddy's and Postern's own pages")
		}
	}
}

var redirectCode = map[string]string{"permanent": "permanent", "temp": "temporary", "seeother": "303", "301": "permanent", "302": "temporary", "303": "303", "307": "307", "308": "308"}

// redirect writes Redirect, which keeps what comes behind the prefix.
func (c *converter) redirect(d *Directive) {
	args := d.Args
	code := "temporary"
	if d.is("RedirectPermanent") {
		code = "permanent"
	}
	if len(args) > 1 && args[0][0] != '/' {
		named, ok := redirectCode[strings.ToLower(args[0])]
		if !ok {
			c.status(d, args[0], args[1])
			return
		}
		code, args = named, args[1:]
	}
	if len(args) != 2 {
		c.notes.add(Lost, d, "a redirect needs a path and a target")
		return
	}
	re := "^" + regexpLiteral(strings.TrimSuffix(args[0], "/")) + "(/.*)?$"
	if args[0] == "/" {
		re = "^/(.*)$"
	}
	m := c.matcher()
	fmt.Fprintf(&c.out, "\t@%s path_regexp %s %s\n\tredir @%s %s{re.%s.1}{?query} %s\n", m, m, token(re), m, args[1], m, code)
}

// status answers a Redirect with a status that is not a redirect: gone, or a
// number.
func (c *converter) status(d *Directive, status, prefix string) {
	if strings.EqualFold(status, "gone") {
		status = "410"
	}
	if len(status) != 3 || status[0] < '3' || status[0] > '5' {
		c.notes.add(Lost, d, "%q is no status", status)
		return
	}
	fmt.Fprintf(&c.out, "\trespond %s %s\n", below(prefix), status)
}

func (c *converter) redirectMatch(d *Directive) {
	args := d.Args
	code := "temporary"
	if len(args) == 3 {
		named, ok := redirectCode[strings.ToLower(args[0])]
		if !ok {
			c.notes.add(Lost, d, "only redirects to an address are carried over")
			return
		}
		code, args = named, args[1:]
	}
	if len(args) != 2 || !c.regexpOK(d, args[0]) {
		return
	}
	m := c.matcher()
	fmt.Fprintf(&c.out, "\t@%s path_regexp %s %s\n\tredir @%s %s %s\n", m, m, token(args[0]), m, token(substitute(args[1], m, "{?query}")), code)
}

// regexpOK notes an expression that RE2 can't read.
func (c *converter) regexpOK(d *Directive, re string) bool {
	if _, err := syntax.Parse(re, syntax.Perl); err != nil {
		c.notes.add(Lost, d, "the regular expression uses what RE2 lacks")
		return false
	}
	return true
}

// rewrite writes one RewriteRule of a host, with the conditions before it.
func (c *converter) rewrite(d *Directive, conds []*Directive) {
	pattern, target := d.arg(0), d.arg(1)
	flags := rewriteFlags(d.arg(2))
	neg := strings.HasPrefix(pattern, "!")
	pattern = strings.TrimPrefix(pattern, "!")
	if !c.regexpOK(d, pattern) {
		return
	}
	m := c.matcher()
	var lines []string
	add := "path_regexp " + m + " " + token(pattern)
	if neg {
		add = "not " + "path_regexp " + token(pattern)
	}
	if flags["nc"] != "" {
		add = strings.Replace(add, token(pattern), token("(?i)"+pattern), 1)
	}
	if pattern != "" && pattern != "^" && pattern != ".*" && pattern != "^.*$" {
		lines = append(lines, add)
	}
	for _, cond := range conds {
		l, when := c.condition(cond)
		switch when {
		case unknown:
			c.notes.add(Lost, d, "the rule is left out with its condition")
			return
		case neverHolds:
			return
		case sometimes:
			lines = append(lines, l)
		}
	}
	to := substitute(target, m, "")
	if strings.Contains(to, "%{") || strings.Contains(to, "%1") {
		if to = serverVariables(to); to == "" {
			c.notes.add(Lost, d, "the target uses a variable that has no match")
			return
		}
	}
	var step string
	switch code := flags["r"]; {
	case flags["f"] != "":
		step = "error @%s 403"
	case flags["g"] != "":
		step = "error @%s 410"
	case target == "-":
		return
	case code != "" || strings.Contains(target, "://"):
		if code == "" || code == "1" {
			code = "temp"
		}
		named, ok := redirectCode[strings.ToLower(code)]
		if !ok {
			c.notes.add(Lost, d, "%q is no redirect", code)
			return
		}
		if !strings.Contains(target, "?") && flags["qsd"] == "" {
			to += "{?query}"
		}
		step = "redir @%s " + token(to) + " " + named
	case flags["p"] != "":
		c.notes.add(Lost, d, "a proxy made by a rewrite has no match; use ProxyPass")
		return
	case strings.HasPrefix(target, "/index.php"):
		c.site.fallback = true
		return
	default:
		step = "rewrite @%s " + token(to)
	}
	if len(lines) == 0 {
		fmt.Fprintf(&c.out, "\t%s\n", strings.Replace(step, "@%s", "*", 1))
		return
	}
	set := strings.Join(lines, "\n\t\t")
	if len(lines) > 1 {
		set = "{\n\t\t" + set + "\n\t}"
	}
	fmt.Fprintf(&c.out, "\t@%s %s\n\t%s\n", m, set, fmt.Sprintf(step, m))
}

// rewriteFlags reads [L,R=permanent,NC].
func rewriteFlags(s string) map[string]string {
	m := map[string]string{}
	long := map[string]string{"redirect": "r", "forbidden": "f", "gone": "g", "nocase": "nc", "proxy": "p", "qsdiscard": "qsd"}
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

// when says whether a condition holds in a site.
type when int

const (
	unknown when = iota // it has no match
	sometimes
	alwaysHolds
	neverHolds
)

// condition writes a RewriteCond as a line of a matcher.
func (c *converter) condition(d *Directive) (string, when) {
	test, pattern := d.arg(0), d.arg(1)
	neg := strings.HasPrefix(pattern, "!")
	pattern = strings.TrimPrefix(pattern, "!")
	not := ""
	if neg {
		not = "not "
	}
	https := func(on bool) (string, when) {
		if c.site.tls == on {
			return "", alwaysHolds
		}
		return "", neverHolds
	}
	eq := strings.TrimPrefix(pattern, "=")
	switch strings.ToUpper(test) {
	case "%{HTTPS}":
		switch strings.ToLower(strings.Trim(eq, "^$")) {
		case "on":
			return https(!neg)
		case "off":
			return https(neg)
		}
	case "%{SERVER_PORT}":
		switch strings.Trim(eq, "^$") {
		case "443":
			return https(!neg)
		case "80":
			return https(neg)
		}
	case "%{REQUEST_URI}":
		if c.regexpOK(d, pattern) {
			return not + "path_regexp " + token(pattern), sometimes
		}
		return "", unknown
	case "%{HTTP_HOST}", "%{SERVER_NAME}":
		if c.regexpOK(d, pattern) {
			fold := ""
			if rewriteFlags(d.arg(2))["nc"] != "" {
				fold = "(?i)"
			}
			return not + "header_regexp Host " + token(fold+pattern), sometimes
		}
		return "", unknown
	case "%{REQUEST_METHOD}":
		if lit := strings.Trim(eq, "^$()"); lit != "" && strings.Trim(lit, "ABCDEFGHIJKLMNOPQRSTUVWXYZ|") == "" {
			return not + "method " + strings.ReplaceAll(lit, "|", " "), sometimes
		}
	case "%{REQUEST_FILENAME}":
		switch pattern {
		case "-f":
			return not + "file", sometimes
		case "-d":
			return not + "file {path}/", sometimes
		}
	}
	c.notes.add(Lost, d, "this condition has no match in Postern")
	return "", unknown
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
func (c *converter) header(d *Directive, to string) {
	args := d.Args
	if len(args) > 0 && (strings.EqualFold(args[0], "always") || strings.EqualFold(args[0], "onsuccess")) {
		args = args[1:]
	}
	switch {
	case len(args) == 3 && strings.EqualFold(args[0], "set"):
		fmt.Fprintf(&c.out, "\t%s %s %s\n", to, token(args[1]), token(args[2]))
	case len(args) == 3 && (strings.EqualFold(args[0], "append") || strings.EqualFold(args[0], "add")):
		fmt.Fprintf(&c.out, "\t%s +%s %s\n", to, token(args[1]), token(args[2]))
	case len(args) == 2 && strings.EqualFold(args[0], "unset"):
		fmt.Fprintf(&c.out, "\t%s -%s\n", to, token(args[1]))
	default:
		c.notes.add(Lost, d, "this form has no match in Postern")
	}
}
