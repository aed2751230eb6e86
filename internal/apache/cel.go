package apache

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// unmatched is why a comparison could not be carried over.
type unmatched struct{ what string }

func (u unmatched) Error() string { return u.what }

// rule writes e as CEL. The reasons tell which parts became false.
func (v *vocabulary) rule(e expr) (cel string, reasons []string) {
	n, reasons := v.tree(e)
	return n.text(0), reasons
}

// tree writes e as a tree.
func (v *vocabulary) tree(e expr) (n node, reasons []string) {
	w := &writer{v: v}
	n = w.write(e, false)
	return n, w.reasons
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
	if !l.known && r.known {
		r, err = comparable(l, r)
	} else if !r.known && l.known {
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
		return v.equality(l, r, op), nil
	case "<", "<=", ">", ">=":
		if neg {
			op = flipped[op]
		}
		if l.number != "" && r.number != "" {
			return atom{guards, l.number + " " + op + " " + r.number, 0}, nil
		}
		if l.known && r.known {
			return atom{cel: strconv.FormatBool(v.ordered(l.literal, r.literal, op))}, nil
		}
		if v.dialect == apExpr {
			return atom{guards, l.cel + " " + op + " " + r.cel, 0}, nil
		}
		// SSLRequire orders strings by length first.
		cel := fmt.Sprintf("size(%[1]s) %[3]s size(%[2]s) || size(%[1]s) == size(%[2]s) && %[1]s %[4]s %[2]s", l.cel,
			r.cel, op[:1], op)
		return atom{guards, cel, inOr}, nil
	case "-eq", "-ne", "-lt", "-le", "-gt", "-ge":
		op = map[string]string{"-eq": "==", "-ne": "!=", "-lt": "<", "-le": "<=", "-gt": ">", "-ge": ">="}[op]
		if neg {
			op = flipped[op]
		}
		if l.known && r.known {
			return atom{cel: strconv.FormatBool(whole(l.literal, r.literal, op))}, nil
		}
		return atom{guards, l.integer() + " " + op + " " + r.integer(), 0}, nil
	case "-ipmatch":
		if !r.known || l.cel != address {
			return atom{}, unmatched{"-ipmatch compares anything but REMOTE_ADDR with an address"}
		}
		return atom{guards, bang(neg) + inNet(r.literal), 0}, nil
	case "-strmatch", "-strcmatch", "-fnmatch":
		if !r.known {
			return atom{}, unmatched{op + " with a pattern that is not literal"}
		}
		re := globRegexp(r.literal, op == "-strcmatch", op == "-fnmatch")
		if l.known {
			ok, err := regexp.MatchString(re, l.literal)
			return atom{cel: strconv.FormatBool(ok != neg)}, err
		}
		return atom{guards, bang(neg) + l.cel + ".matches(" + quote(re) + ")", 0}, nil
	}
	return atom{}, unmatched{"the operator " + e.op + " is not known"}
}

// once notes that an attribute is compared, of which Apache looks at the first.
func (v *vocabulary) once(x value) {
	if x.attr != "" {
		v.changed = append(v.changed,
			"of an attribute that a name has several times Apache compares the first; here none of them matches")
	}
}

// ordered compares two texts that are known. SSLRequire orders by length first.
func (v *vocabulary) ordered(l, r, op string) bool {
	order := cmp.Compare(l, r)
	if v.dialect == sslRequire {
		order = cmp.Or(cmp.Compare(len(l), len(r)), order)
	}
	return holds(order, op)
}

// whole compares two texts as whole numbers, as atoi(3) reads them.
func whole(l, r, op string) bool {
	a, _ := strconv.Atoi(strings.TrimSpace(l))
	b, _ := strconv.Atoi(strings.TrimSpace(r))
	return holds(cmp.Compare(a, b), op)
}

func holds(order int, op string) bool {
	switch op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	case "==":
		return order == 0
	}
	return order != 0
}

// equality compares two strings. An attribute that is not there is the empty
// string to Apache; one that is there twice fails in the gate, and refuses.
func (v *vocabulary) equality(l, r value, op string) atom {
	if l.attr == "" && r.attr != "" {
		l, r = r, l
	}
	v.once(l)
	if l.serial && op == "==" || l.pem {
		l.cel = strings.TrimSuffix(l.cel, ".upperAscii()")
	}
	switch {
	case l.known && r.known:
		return atom{cel: strconv.FormatBool((l.literal == r.literal) == (op == "=="))}
	case l.attr == "" || r.attr != "":
		return atom{append(l.guards, r.guards...), l.cel + " " + op + " " + r.cel, 0}
	case op == "==" && r.cel == `""`:
		return atom{nil, "size(" + l.attr + ") == 0", 0}
	case op == "==":
		return atom{r.guards, l.attr + " == " + r.cel, 0}
	case r.cel == `""`:
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
	if l.known {
		return atom{cel: strconv.FormatBool(compiled.MatchString(l.literal) != (neg != e.differs))}, nil
	}
	v.once(l)
	if l.attr == "" {
		return atom{l.guards, bang(neg != e.differs) + l.cel + ".matches(" + quote(re) + ")", 0}, nil
	}
	if neg != e.differs {
		return atom{nil, "size(" + l.attr + ") == 0 || !" + l.attr + ".matches(" + quote(re) + ")", inOr}, nil
	}
	return atom{nil, l.attr + ".matches(" + quote(re) + ")", 0}, nil
}

func (v *vocabulary) in(e in, neg bool) (atom, error) {
	l, err := v.value(e.l)
	if err != nil {
		return atom{}, err
	}
	v.once(l)
	guards := l.guards
	var list []string
	var all []value
	for _, w := range e.list {
		x, err := v.value(w)
		if err != nil {
			return atom{}, err
		}
		if x.known {
			if x, err = comparable(l, x); err != nil {
				return atom{}, err
			}
		}
		guards = append(guards, x.guards...)
		list, all = append(list, x.cel), append(all, x)
	}
	if l.known && !slices.ContainsFunc(all, func(x value) bool { return !x.known }) {
		return atom{cel: strconv.FormatBool(slices.ContainsFunc(all, func(x value) bool {
			return x.literal == l.literal
		}) != neg)}, nil
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
		if err != nil || !x.known {
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
		return v.equality(x, literal(""), op), nil
	}
	if e.op == "-T" && x.known {
		off := []string{"", "0", "off", "false", "no"}
		return atom{cel: strconv.FormatBool(slices.Contains(off, strings.ToLower(x.literal)) == neg)}, nil
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
	literal string // what it is, when all of it is known
	known   bool
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
	out := value{known: true}
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
		out.known, out.literal = out.known && x.known, out.literal+x.literal
	}
	if out.known {
		return literal(out.literal), nil
	}
	out.literal = ""
	out.cel = "(" + strings.Join(cels, " + ") + ")"
	return out, nil
}

func (v *vocabulary) part(p part) (value, error) {
	if p.name == "" {
		x := literal(p.lit)
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
		if x.known {
			return literal(strings.ToLower(x.literal)), nil
		}
		return value{cel: x.cel + ".lowerAscii()", guards: x.guards}, nil
	case "toupper":
		if x.known {
			return literal(strings.ToUpper(x.literal)), nil
		}
		return value{cel: x.cel + ".upperAscii()", guards: x.guards}, nil
	case "file":
		if !x.known {
			return value{}, unmatched{"file() of a name that is not literal"}
		}
		text, err := v.file(x.literal)
		if err != nil {
			return value{}, unmatched{fmt.Sprintf("file(%q) can't be read: %v", x.literal, err)}
		}
		return literal(text), nil
	case "http", "req", "req_novary":
		if !x.known {
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
