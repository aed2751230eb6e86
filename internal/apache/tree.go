package apache

import (
	"slices"
	"strconv"
	"strings"
)

// A condition of Apache's is written as a tree in which doubt refuses: only single
// comparisons are negated; each comparison that has no match is false, negated
// or not, and each that looks at an attribute which a subject may carry twice
// holds only if it is there at most once.

// shown says what is known of the client's certificate while a condition is
// written.
type shown int

const (
	anyShown  shown = iota // a certificate that was verified
	noneShown              // none: Apache's variables about it are empty
	eitherWay              // a certificate or none: what depends on it does not hold
)

// node is a condition in the language of the gate: a constant, a comparison, or
// several of them joined.
type node struct {
	op      byte // 't' true, 'f' false, 'a' a comparison, '&', '|'
	kids    []node
	atom    atom
	nets    []string // the comparison is that the address is in one of these networks
	methods []string // or that the method is one of these
}

var (
	always   = node{op: 't'}
	neverSet = node{op: 'f'}
)

// Binding strengths, to place no more parentheses than CEL needs.
const (
	inOr = iota + 1
	inAnd
	inAtom
)

// writer writes conditions as trees.
type writer struct {
	v       *vocabulary
	reasons []string // which parts became false
}

func (w *writer) write(e expr, neg bool) node {
	switch e := e.(type) {
	case truth:
		return constant(bool(e) != neg)
	case not:
		return w.write(e.x, !neg)
	case and:
		return join(w.write(e.l, neg), w.write(e.r, neg), !neg)
	case or:
		return join(w.write(e.l, neg), w.write(e.r, neg), neg)
	case never:
		return neverSet
	case written:
		around := w.v.dialect
		w.v.dialect = e.in
		defer func() { w.v.dialect = around }()
		return w.write(e.x, neg)
	case legacyNames:
		around := w.v.oneline
		w.v.oneline = true
		defer func() { w.v.oneline = around }()
		return w.write(e.x, neg)
	}
	return w.comparison(e, neg)
}

func (w *writer) comparison(e expr, neg bool) node {
	before := w.v.certificate
	w.v.certificate = false
	a, err := w.v.atom(e, neg)
	reads := w.v.certificate
	w.v.certificate = before || reads
	switch {
	case err != nil:
		w.reasons = append(w.reasons, err.Error())
		return neverSet
	case reads && w.v.shown == eitherWay:
		return neverSet
	case a.cel == "true" && len(a.guards) == 0, a.cel == "false":
		return constant(a.cel == "true")
	}
	n := node{op: 'a', atom: a}
	if !neg {
		n.nets, n.methods = networks(e), methodNames(e)
	}
	return n
}

func constant(b bool) node {
	if b {
		return always
	}
	return neverSet
}

// join joins two conditions, leaving out what true and false make idle.
func join(l, r node, conj bool) node {
	op, idle, wins := byte('|'), byte('f'), byte('t')
	if conj {
		op, idle, wins = '&', 't', 'f'
	}
	switch {
	case l.op == wins || r.op == wins:
		return node{op: wins}
	case l.op == idle:
		return r
	case r.op == idle:
		return l
	}
	out := node{op: op, kids: slices.Concat(l.parts(op), r.parts(op))}
	if op == '|' && !slices.ContainsFunc(out.kids, func(k node) bool { return len(k.nets) == 0 }) {
		for _, k := range out.kids {
			out.nets = append(out.nets, k.nets...)
		}
	}
	return out
}

// parts are what is joined by an operator.
func (n node) parts(op byte) []node {
	if n.op == op {
		return n.kids
	}
	return []node{n}
}

// text writes the condition as CEL.
func (n node) text(outer int) string {
	switch n.op {
	case 't', 'f':
		return strconv.FormatBool(n.op == 't')
	case 'a':
		return n.atom.text(outer)
	}
	sep, level := " || ", inOr
	if n.op == '&' {
		sep, level = " && ", inAnd
	}
	var list []string
	for _, k := range n.kids {
		list = append(list, k.text(level))
	}
	s := strings.Join(slices.Compact(list), sep)
	if outer > level {
		s = "(" + s + ")"
	}
	return s
}

// networks are those that a comparison holds the address against.
func networks(e expr) []string {
	switch e := e.(type) {
	case unary:
		if e.op == "-R" && len(e.x) == 1 && e.x[0].name == "" {
			return []string{e.x[0].lit}
		}
	case binary:
		if e.op == "-ipmatch" && len(e.r) == 1 && e.r[0].name == "" && len(e.l) == 1 && strings.EqualFold(e.l[0].name,
			"REMOTE_ADDR") {
			return []string{e.r[0].lit}
		}
	}
	return nil
}

// methodNames are those that a comparison holds the method against, where each is
// one that a guard may name.
func methodNames(e expr) (names []string) {
	x, ok := e.(in)
	if b, equal := e.(binary); equal && b.op == "==" {
		x, ok = in{b.l, []word{b.r}}, true
	}
	if !ok || len(x.l) != 1 || !strings.EqualFold(x.l[0].name, "REQUEST_METHOD") {
		return nil
	}
	for _, w := range x.list {
		if len(w) != 1 || w[0].name != "" || w[0].lit == "" ||
			strings.Trim(w[0].lit, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return nil
		}
		names = append(names, w[0].lit)
	}
	return names
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
