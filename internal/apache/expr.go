package apache

import (
	"errors"
	"fmt"
	"strings"
)

// dialect says which of Apache's two expression languages is read. They look
// alike, but eq compares strings in SSLRequire and whole numbers elsewhere.
type dialect int

const (
	sslRequire dialect = iota // mod_ssl's SSLRequire
	apExpr                    // Require expr, <If>
)

// expr is one node of a condition.
type expr interface{ isExpr() }

type (
	truth  bool
	not    struct{ x expr }
	and    struct{ l, r expr }
	or     struct{ l, r expr }
	binary struct { // op: one of == != < <= > >= -eq -ne -lt -le -gt -ge -ipmatch -strmatch -strcmatch -fnmatch
		op   string
		l, r word
	}
	match struct { // l =~ m/re/flags
		l       word
		re      string
		fold    bool
		differs bool // !~
	}
	in struct { // l in { list }
		l    word
		list []word
	}
	inExt struct { // l in PeerExtList("oid")
		l   word
		oid string
	}
	unary struct { // op: -n -z -T -R -e and so on
		op string
		x  word
	}
	written struct { // x in another language than that around it
		in dialect
		x  expr
	}
	legacyNames struct{ x expr } // in which DNs are written as with SSLOptions +LegacyDNStringFormat
	never       struct{}         // does not hold, negated or not; why has been noted
)

func (truth) isExpr()       {}
func (not) isExpr()         {}
func (and) isExpr()         {}
func (or) isExpr()          {}
func (binary) isExpr()      {}
func (match) isExpr()       {}
func (in) isExpr()          {}
func (inExt) isExpr()       {}
func (unary) isExpr()       {}
func (written) isExpr()     {}
func (legacyNames) isExpr() {}
func (never) isExpr()       {}

// word is a string made of parts put one behind the other.
type word []part

// part is a literal, a variable %{NAME}, or a function of a word.
type part struct {
	lit  string
	name string // variable or function, as written; "" for a literal
	arg  word   // of a function
	fn   bool
}

// maxNest bounds how deep parentheses and nots go.
const maxNest = 100

// parseExpr reads one condition.
func parseExpr(s string, d dialect) (expr, error) {
	if len(s) > maxPattern {
		return nil, errors.New("the expression is too long")
	}
	p := &exprParser{s: s, d: d}
	e, err := p.or(0)
	if err != nil {
		return nil, fmt.Errorf("column %d: %w", p.i+1, err)
	}
	if p.space(); p.i < len(p.s) {
		return nil, fmt.Errorf("column %d: unexpected %q", p.i+1, clip(p.s[p.i:]))
	}
	return e, nil
}

func clip(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}

type exprParser struct {
	s string
	i int
	d dialect
}

func (p *exprParser) space() {
	for p.i < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.i]) >= 0 {
		p.i++
	}
}

// take consumes the first of the tokens that comes next. A token made of
// letters must end there.
func (p *exprParser) take(tokens ...string) (string, bool) {
	p.space()
	for _, t := range tokens {
		rest := p.s[p.i:]
		if len(rest) < len(t) || !strings.EqualFold(rest[:len(t)], t) {
			continue
		}
		if isLetter(t[len(t)-1]) && len(rest) > len(t) && (isLetter(rest[len(t)]) || isDigit(rest[len(t)])) {
			continue
		}
		p.i += len(t)
		return t, true
	}
	return "", false
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func (p *exprParser) or(depth int) (expr, error) {
	l, err := p.and(depth)
	if err != nil {
		return nil, err
	}
	for {
		if _, ok := p.take("||", "or"); !ok {
			return l, nil
		}
		r, err := p.and(depth)
		if err != nil {
			return nil, err
		}
		l = or{l, r}
	}
}

func (p *exprParser) and(depth int) (expr, error) {
	l, err := p.not(depth)
	if err != nil {
		return nil, err
	}
	for {
		if _, ok := p.take("&&", "and"); !ok {
			return l, nil
		}
		r, err := p.not(depth)
		if err != nil {
			return nil, err
		}
		l = and{l, r}
	}
}

func (p *exprParser) not(depth int) (expr, error) {
	if depth > maxNest {
		return nil, errors.New("nested too deep")
	}
	if _, ok := p.take("!", "not"); ok {
		x, err := p.not(depth + 1)
		return not{x}, err
	}
	if _, ok := p.take("("); ok {
		x, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if _, ok := p.take(")"); !ok {
			return nil, errors.New("missing )")
		}
		return x, nil
	}
	if _, ok := p.take("true"); ok {
		return truth(true), nil
	}
	if _, ok := p.take("false"); ok {
		return truth(false), nil
	}
	return p.comparison()
}

var unaryOps = []string{"-d", "-e", "-f", "-s", "-L", "-h", "-F", "-U", "-A", "-n", "-z", "-T", "-R"}

// The operators of each language, the longer before those that begin them.
var (
	stringOps  = []string{"==", "!=", "<=", "<", ">=", ">"}
	integerOps = []string{"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "eq", "ne", "lt", "le", "gt", "ge"}
	otherOps   = []string{"-ipmatch", "-strmatch", "-strcmatch", "-fnmatch"}
	symbol     = map[string]string{"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
)

func (p *exprParser) comparison() (expr, error) {
	if p.d == apExpr {
		// Case matters in operators: -L is not -l.
		p.space()
		for _, op := range unaryOps {
			rest := p.s[p.i:]
			if strings.HasPrefix(rest, op) && len(rest) > len(op) && strings.IndexByte(" \t%'\"", rest[len(op)]) >= 0 {
				p.i += len(op)
				x, err := p.word()
				return unary{op, x}, err
			}
		}
	}
	l, err := p.word()
	if err != nil {
		return nil, err
	}
	if op, ok := p.take("=~", "!~"); ok {
		re, fold, err := p.regex()
		return match{l, re, fold, op == "!~"}, err
	}
	if _, ok := p.take("in", "-in"); ok {
		return p.in(l)
	}
	op, ok := p.take(stringOps...)
	if !ok {
		if op, ok = p.take(integerOps...); ok {
			op = strings.TrimPrefix(op, "-")
			if p.d == sslRequire {
				op = symbol[op]
			} else {
				op = "-" + op
			}
		}
	}
	if !ok && p.d == apExpr {
		op, ok = p.take(otherOps...)
	}
	if !ok {
		if p.d == apExpr && len(l) == 1 && l[0].fn {
			return unary{"-T", l}, nil // a function alone is a truth value
		}
		return nil, errors.New("expected a comparison")
	}
	r, err := p.word()
	return binary{op, l, r}, err
}

func (p *exprParser) in(l word) (expr, error) {
	if _, ok := p.take("PeerExtList", "OID"); ok {
		if _, ok := p.take("("); !ok {
			return nil, errors.New("PeerExtList needs (\"oid\")")
		}
		oid, err := p.word()
		if err != nil {
			return nil, err
		}
		if _, ok := p.take(")"); !ok || len(oid) != 1 || oid[0].name != "" {
			return nil, errors.New("PeerExtList needs one OID in quotes")
		}
		return inExt{l, oid[0].lit}, nil
	}
	if _, ok := p.take("{"); !ok {
		return nil, errors.New("in needs { a list }")
	}
	var list []word
	for {
		w, err := p.word()
		if err != nil {
			return nil, err
		}
		list = append(list, w)
		if _, ok := p.take(","); ok {
			continue
		}
		if _, ok := p.take("}"); ok {
			return in{l, list}, nil
		}
		return nil, errors.New("a list goes on with , or ends with }")
	}
}

// regex reads m/…/flags with any delimiter, or /…/flags.
func (p *exprParser) regex() (re string, fold bool, err error) {
	p.space()
	if p.i < len(p.s) && p.s[p.i] == 'm' {
		p.i++
	} else if p.i >= len(p.s) || p.s[p.i] != '/' {
		return "", false, errors.New("expected a regular expression, m/…/")
	}
	if p.i >= len(p.s) {
		return "", false, errors.New("expected a regular expression, m/…/")
	}
	delim := p.s[p.i]
	end := strings.IndexByte(p.s[p.i+1:], delim)
	if end < 0 {
		return "", false, fmt.Errorf("the regular expression never ends with %c", delim)
	}
	re = p.s[p.i+1 : p.i+1+end]
	p.i += end + 2
	for p.i < len(p.s) && isLetter(p.s[p.i]) {
		switch p.s[p.i] {
		case 'i':
			fold = true
		case 's', 'm', 'g':
			re = "(?" + string(p.s[p.i]) + ")" + re
			if p.s[p.i] == 'g' {
				return "", false, errors.New("the g flag has no meaning in a condition")
			}
		default:
			return "", false, fmt.Errorf("unknown flag %c of a regular expression", p.s[p.i])
		}
		p.i++
	}
	return re, fold, nil
}

// word reads a literal, a number, a variable, a function, or several of them
// joined by a dot.
func (p *exprParser) word() (word, error) {
	var w word
	for {
		one, err := p.factor()
		if err != nil {
			return nil, err
		}
		w = append(w, one...)
		if p.d == sslRequire {
			return w, nil
		}
		if _, ok := p.take("."); !ok {
			return w, nil
		}
	}
}

func (p *exprParser) factor() (word, error) {
	p.space()
	if p.i >= len(p.s) {
		return nil, errors.New("expected a value, found the end")
	}
	switch c := p.s[p.i]; {
	case c == '"' || c == '\'':
		return p.quoted(c)
	case c == '%':
		v, err := p.variable()
		return word{v}, err
	case isDigit(c):
		start := p.i
		for p.i < len(p.s) && (isDigit(p.s[p.i]) || p.s[p.i] == '.' && p.d == sslRequire) {
			p.i++
		}
		return word{{lit: p.s[start:p.i]}}, nil
	case isLetter(c):
		start := p.i
		for p.i < len(p.s) && (isLetter(p.s[p.i]) || isDigit(p.s[p.i])) {
			p.i++
		}
		name := p.s[start:p.i]
		if _, ok := p.take("("); !ok {
			return nil, fmt.Errorf("unexpected word %q", name)
		}
		arg, err := p.word()
		if err != nil {
			return nil, err
		}
		if _, ok := p.take(")"); !ok {
			return nil, fmt.Errorf("%s( needs a )", name)
		}
		return word{{name: name, fn: true, arg: arg}}, nil
	default:
		return nil, fmt.Errorf("unexpected %q", clip(p.s[p.i:]))
	}
}

// variable reads %{NAME} or %{function:argument}.
func (p *exprParser) variable() (part, error) {
	if !strings.HasPrefix(p.s[p.i:], "%{") {
		return part{}, errors.New("expected %{")
	}
	end := strings.IndexByte(p.s[p.i:], '}')
	if end < 0 {
		return part{}, errors.New("%{ is never closed")
	}
	name := p.s[p.i+2 : p.i+end]
	p.i += end + 1
	if name == "" {
		return part{}, errors.New("%{} names nothing")
	}
	return part{name: name}, nil
}

// quoted reads a string; variables inside it are put in by Apache in
// conditions, and by SSLRequire not.
func (p *exprParser) quoted(q byte) (word, error) {
	p.i++
	var w word
	var b strings.Builder
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == q:
			p.i++
			if b.Len() > 0 || len(w) == 0 {
				w = append(w, part{lit: b.String()})
			}
			return w, nil
		case c == '\\' && p.i+1 < len(p.s):
			p.i++
			switch e := p.s[p.i]; e {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			default:
				b.WriteByte(e)
			}
			p.i++
		case p.d == apExpr && strings.HasPrefix(p.s[p.i:], "%{"):
			v, err := p.variable()
			if err != nil {
				return nil, err
			}
			if b.Len() > 0 {
				w = append(w, part{lit: b.String()})
				b.Reset()
			}
			w = append(w, v)
		default:
			b.WriteByte(c)
			p.i++
		}
	}
	return nil, errors.New("the string is never closed")
}
