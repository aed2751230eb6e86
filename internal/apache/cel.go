package apache

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A condition of Apache's is written as a CEL rule in which doubt refuses: it
// is first brought into a form where only single comparisons are negated; then
// each comparison that has no match becomes false, negated or not, and each
// that looks at an attribute which a subject may carry twice holds only if it
// is there at most once.

// unmatched is why a comparison could not be carried over.
type unmatched struct{ what string }

func (u unmatched) Error() string { return u.what }

// rule writes e as CEL. The reasons tell which parts became false.
func (v *vocabulary) rule(e expr) (cel string, reasons []string) {
	r := &ruleWriter{v: v}
	cel = r.write(e, false, 0)
	return cel, r.reasons
}

type ruleWriter struct {
	v       *vocabulary
	reasons []string
}

// Binding strengths, to place no more parentheses than CEL needs.
const (
	inOr = iota + 1
	inAnd
	inAtom
)

func (r *ruleWriter) write(e expr, neg bool, outer int) string {
	switch e := e.(type) {
	case truth:
		return strconv.FormatBool(bool(e) != neg)
	case not:
		return r.write(e.x, !neg, outer)
	case and:
		return r.join(e.l, e.r, neg, !neg, outer)
	case or:
		return r.join(e.l, e.r, neg, neg, outer)
	}
	if _, ok := e.(never); ok {
		return "false"
	}
	a, err := r.v.atom(e, neg)
	if err != nil {
		r.reasons = append(r.reasons, err.Error())
		return "false"
	}
	return a.text(outer)
}

// join writes two conditions with && or ||, leaving out what true and false
// make idle.
func (r *ruleWriter) join(l, x expr, neg, conj bool, outer int) string {
	op, level, idle, wins := " || ", inOr, "false", "true"
	if conj {
		op, level, idle, wins = " && ", inAnd, "true", "false"
	}
	a, b := r.write(l, neg, level), r.write(x, neg, level)
	switch {
	case a == wins || b == wins:
		return wins
	case a == idle:
		return b
	case b == idle:
		return a
	}
	if s := a + op + b; outer <= level {
		return s
	} else {
		return "(" + s + ")"
	}
}

// atom is one comparison and what must hold beside it.
type atom struct {
	guards []string
	cel    string
	level  int // binding strength of cel; 0 means it stands alone
}

func (a atom) text(outer int) string {
	if len(a.guards) == 0 {
		if a.level != 0 && outer > a.level {
			return "(" + a.cel + ")"
		}
		return a.cel
	}
	body := a.cel
	if a.level == inOr {
		body = "(" + body + ")"
	}
	s := strings.Join(append(a.guards, body), " && ")
	if outer > inAnd {
		s = "(" + s + ")"
	}
	return s
}

var flipped = map[string]string{"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}

// atom writes one comparison, negated if neg.
func (v *vocabulary) atom(e expr, neg bool) (atom, error) {
	switch e := e.(type) {
	case binary:
		return v.binary(e, neg)
	case match:
		return v.match(e, neg)
	case in:
		return v.in(e, neg)
	case inExt:
		return v.inExt(e, neg)
	case unary:
		return v.unary(e, neg)
	}
	return atom{}, unmatched{"this comparison is not known"}
}

func (v *vocabulary) binary(e binary, neg bool) (atom, error) {
	l, err := v.value(e.l)
	if err != nil {
		return atom{}, err
	}
	r, err := v.value(e.r)
	if err != nil {
		return atom{}, err
	}
	if l.literal == "" && r.literal != "" {
		r, err = comparable(l, r)
	} else if r.literal == "" && l.literal != "" {
		l, err = comparable(r, l)
	}
	if err != nil {
		return atom{}, err
	}
	guards := append(l.guards, r.guards...)
	switch op := e.op; op {
	case "==", "!=":
		if neg {
			op = flipped[op]
		}
		return equality(l, r, op), nil
	case "<", "<=", ">", ">=":
		if neg {
			op = flipped[op]
		}
		if l.number != "" && r.number != "" {
			return atom{guards, l.number + " " + op + " " + r.number, 0}, nil
		}
		if v.dialect == apExpr {
			return atom{guards, l.cel + " " + op + " " + r.cel, 0}, nil
		}
		// SSLRequire orders strings by length first.
		cel := fmt.Sprintf("size(%[1]s) %[3]s size(%[2]s) || size(%[1]s) == size(%[2]s) && %[1]s %[4]s %[2]s", l.cel, r.cel, op[:1], op)
		return atom{guards, cel, inOr}, nil
	case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
		op = map[string]string{"-eq": "==", "-ne": "!=", "-lt": "<", "-le": "<=", "-gt": ">", "-ge": ">="}[op]
		if neg {
			op = flipped[op]
		}
		return atom{guards, l.integer() + " " + op + " " + r.integer(), 0}, nil
	case "-ipmatch":
		if r.literal == "" || l.cel != address {
			return atom{}, unmatched{"-ipmatch compares anything but REMOTE_ADDR with an address"}
		}
		return atom{guards, bang(neg) + inNet(r.literal), 0}, nil
	case "-strmatch", "-strcmatch", "-fnmatch":
		if r.literal == "" {
			return atom{}, unmatched{op + " with a pattern that is not literal"}
		}
		re := globRegexp(r.literal, op == "-strcmatch", op == "-fnmatch")
		return atom{guards, bang(neg) + l.cel + ".matches(" + quote(re) + ")", 0}, nil
	}
	return atom{}, unmatched{"the operator " + e.op + " is not known"}
}

// equality compares two strings. An attribute that is not there is the empty
// string to Apache; one that is there twice fails in the gate, and refuses.
func equality(l, r value, op string) atom {
	if l.attr == "" && r.attr != "" {
		l, r = r, l
	}
	if l.serial && op == "==" || l.pem {
		l.cel = strings.TrimSuffix(l.cel, ".upperAscii()")
	}
	switch {
	case l.literal != "" && r.literal != "":
		return atom{cel: strconv.FormatBool((l.literal == r.literal) == (op == "=="))}
	case l.attr == "" || r.attr != "":
		return atom{append(l.guards, r.guards...), l.cel + " " + op + " " + r.cel, 0}
	case op == "==" && r.literal == "" && r.cel == `""`:
		return atom{nil, "size(" + l.attr + ") == 0", 0}
	case op == "==":
		return atom{r.guards, l.attr + " == " + r.cel, 0}
	case r.literal == "" && r.cel == `""`:
		return atom{nil, "size(" + l.attr + ") > 0", 0}
	}
	return atom{r.guards, "size(" + l.attr + ") == 0 || " + l.attr + " != " + r.cel, inOr}
}

func (v *vocabulary) match(e match, neg bool) (atom, error) {
	l, err := v.value(e.l)
	if err != nil {
		return atom{}, err
	}
	re := e.re
	if e.fold {
		re = "(?i)" + re
	}
	compiled, err := regexp.Compile(re)
	if err != nil {
		return atom{}, unmatched{fmt.Sprintf("the regular expression %s uses what RE2 lacks", e.re)}
	}
	if l.literal != "" {
		return atom{cel: strconv.FormatBool(compiled.MatchString(l.literal) != (neg != e.differs))}, nil
	}
	if l.attr == "" {
		return atom{l.guards, bang(neg != e.differs) + l.cel + ".matches(" + quote(re) + ")", 0}, nil
	}
	if neg != e.differs {
		return atom{nil, "size(" + l.attr + ") == 0 || !" + l.attr + ".matches(" + quote(re) + ")", inOr}, nil
	}
	return atom{nil, l.attr + ".matches(" + quote(re) + ")", 0}, nil
}

func (v *vocabulary) inExt(e inExt, neg bool) (atom, error) {
	v.certificate = true
	l, err := v.value(e.l)
	if err != nil {
		return atom{}, err
	}
	if strings.Trim(e.oid, "0123456789.") != "" {
		return atom{}, unmatched{"PeerExtList needs the OID in numbers, not " + e.oid}
	}
	cel := l.cel + " in cert.extension(" + quote(e.oid) + ")"
	if neg {
		cel = "!(" + cel + ")"
	}
	return atom{l.guards, cel, 0}, nil
}

func (v *vocabulary) in(e in, neg bool) (atom, error) {
	l, err := v.value(e.l)
	if err != nil {
		return atom{}, err
	}
	guards := l.guards
	var list []string
	for _, w := range e.list {
		x, err := v.value(w)
		if err != nil {
			return atom{}, err
		}
		if x.literal != "" {
			if x, err = comparable(l, x); err != nil {
				return atom{}, err
			}
		}
		guards = append(guards, x.guards...)
		list = append(list, x.cel)
	}
	if l.serial {
		l.cel = "cert.serial"
	}
	cel := l.cel + " in [" + strings.Join(list, ", ") + "]"
	if neg {
		cel = "!(" + cel + ")"
	}
	return atom{guards, cel, 0}, nil
}

func (v *vocabulary) unary(e unary, neg bool) (atom, error) {
	if e.op == "-R" {
		x, err := v.value(e.x)
		if err != nil || x.literal == "" {
			return atom{}, unmatched{"-R with an address that is not literal"}
		}
		return atom{nil, bang(neg) + inNet(x.literal), 0}, nil
	}
	x, err := v.value(e.x)
	if err != nil {
		return atom{}, err
	}
	empty := map[string]bool{"-z": true, "-n": false}
	if z, ok := empty[e.op]; ok {
		op := "!="
		if z != neg {
			op = "=="
		}
		return equality(x, literal(""), op), nil
	}
	if e.op == "-T" {
		// Empty, "0", "off", "false" and "no" are false.
		return atom{x.guards, bang(!neg) + `(` + x.cel + `.lowerAscii() in ["", "0", "off", "false", "no"])`, 0}, nil
	}
	return atom{}, unmatched{"the test " + e.op + " looks at the server's files"}
}

func bang(neg bool) string {
	if neg {
		return "!"
	}
	return ""
}

// value is a word in CEL.
type value struct {
	cel     string
	literal string   // what it is, when all of it is known
	attr    string   // the attribute it is, when it is just that
	number  string   // the same as a whole number, where that is its meaning
	serial  bool     // a serial number in upper-case hex
	pem     bool     // a certificate, by its fingerprint
	guards  []string // what must hold for it to have one meaning
}

// integer writes the value as a whole number. What is not one fails when the
// rule is evaluated, which refuses.
func (x value) integer() string {
	if x.number != "" {
		return x.number
	}
	return "int(" + x.cel + ")"
}

// value writes a word as one CEL string.
func (v *vocabulary) value(w word) (value, error) {
	var out value
	var cels []string
	for _, p := range w {
		x, err := v.part(p)
		if err != nil {
			return value{}, err
		}
		if len(w) == 1 {
			return x, nil
		}
		cels = append(cels, x.cel)
		out.guards = append(out.guards, x.guards...)
	}
	out.cel = "(" + strings.Join(cels, " + ") + ")"
	return out, nil
}

func (v *vocabulary) part(p part) (value, error) {
	if p.name == "" {
		x := value{cel: quote(p.lit), literal: p.lit}
		if n, err := strconv.ParseInt(p.lit, 10, 64); err == nil {
			x.number = strconv.FormatInt(n, 10)
		}
		return x, nil
	}
	if !p.fn {
		return v.variable(p.name)
	}
	return v.function(p)
}

// function writes a function of Apache's as CEL.
func (v *vocabulary) function(p part) (value, error) {
	x, err := v.value(p.arg)
	if err != nil {
		return value{}, err
	}
	switch strings.ToLower(p.name) {
	case "tolower":
		return value{cel: x.cel + ".lowerAscii()", guards: x.guards}, nil
	case "toupper":
		return value{cel: x.cel + ".upperAscii()", guards: x.guards}, nil
	case "file":
		if x.literal == "" {
			return value{}, unmatched{"file() of a name that is not literal"}
		}
		text, err := v.file(x.literal)
		if err != nil {
			return value{}, unmatched{fmt.Sprintf("file(%q) can't be read: %v", x.literal, err)}
		}
		return value{cel: quote(text), literal: text}, nil
	case "http", "req", "req_novary":
		if x.literal == "" {
			return value{}, unmatched{p.name + "() of a header that is not literal"}
		}
		return v.header(x.literal), nil
	case "reqenv", "env", "osenv", "note", "resp", "ldap":
		return value{}, unmatched{p.name + "() has no match here"}
	}
	return value{}, unmatched{"the function " + p.name + " has no match here"}
}

// quote writes s as a CEL string that fits between the backquotes of a
// Caddyfile.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '`' || r < ' ' || r == 0x7f || r == '{' || r == '}':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// globRegexp turns a shell pattern into an anchored regular expression; with
// pathname, * and ? stop at a slash.
func globRegexp(glob string, fold, pathname bool) string {
	var b strings.Builder
	if fold {
		b.WriteString("(?i)")
	}
	b.WriteByte('^')
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '*':
			if pathname {
				b.WriteString("[^/]*")
			} else {
				b.WriteString(".*")
			}
		case '?':
			if pathname {
				b.WriteString("[^/]")
			} else {
				b.WriteByte('.')
			}
		case '[':
			end := strings.IndexByte(glob[i:], ']')
			if end > 1 {
				set := glob[i+1 : i+end]
				if set[0] == '!' {
					set = "^" + set[1:]
				}
				b.WriteString("[" + strings.ReplaceAll(set, `\`, `\\`) + "]")
				i += end
				continue
			}
			b.WriteString(`\[`)
		case '\\':
			if i++; i < len(glob) {
				b.WriteString(regexpQuote(glob[i]))
			}
		default:
			b.WriteString(regexpQuote(c))
		}
	}
	b.WriteByte('$')
	return b.String()
}

func regexpQuote(c byte) string {
	if strings.IndexByte(`\.+*?()|[]{}^$`, c) >= 0 {
		return `\` + string(c)
	}
	return string(c)
}
