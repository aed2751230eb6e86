package gate

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/postern-project/postern"
)

// Way is one way to pass a guard. Persons and groups are alternatives to each
// other; addresses, methods and every rule must hold besides. Without persons
// and groups every valid certificate passes. With Anyone no certificate is asked
// for: such a way has an address, a method or a rule, and looks at the request
// alone.
type Way struct {
	Persons   []string `json:"persons,omitempty"` // names, or e-mail addresses
	Groups    []string `json:"groups,omitempty"`
	Anyone    bool     `json:"anyone,omitempty"`
	Addresses []string `json:"addresses,omitempty"` // networks, or single addresses; any of them
	Methods   []string `json:"methods,omitempty"`   // any of them; GET does not include HEAD
	Rules     []string `json:"rules,omitempty"`     // see CompileRule
}

func (w Way) empty() bool {
	return len(w.Persons)+len(w.Groups)+len(w.Addresses)+len(w.Methods)+len(w.Rules) == 0
}

// way is a compiled Way.
type way struct {
	persons, groups []string
	rules           []*Rule
	anyone          bool
	moving          bool // a rule looks at the request or the clock
}

func newWay(c Way) (w way, err error) {
	w.anyone = c.Anyone
	if c.Anyone && (len(c.Persons)+len(c.Groups) > 0 || c.empty()) {
		return w, postern.Errorf(postern.Invalid,
			"a way for anyone has an address, a method or a rule, and neither persons nor groups")
	}
	for _, p := range c.Persons {
		if w.persons, err = appendPerson(w.persons, p); err != nil {
			return w, err
		}
	}
	for _, name := range c.Groups {
		if !postern.ValidGroup(name) {
			return w, postern.Errorf(postern.Invalid, "%q is not the name of a group", name)
		}
		w.groups = append(w.groups, name)
	}
	conditions, err := c.conditions()
	if err != nil {
		return w, err
	}
	for _, source := range append(conditions, c.Rules...) {
		r, err := CompileRule(source)
		if err != nil {
			return w, ruleError(err)
		}
		if w.anyone && r.certified {
			return w, postern.Errorf(postern.Invalid,
				"a rule for anyone reads the request, not a certificate or a person: %s", r)
		}
		w.rules = append(w.rules, r)
		w.moving = w.moving || r.Moving()
	}
	return w, nil
}

// conditions returns addresses and methods as rules.
func (w Way) conditions() (rules []string, err error) {
	for _, a := range w.Addresses {
		if _, ok := network(a); !ok {
			return nil, postern.Errorf(postern.Invalid, "%q is not a network like 192.0.2.0/24, nor an address", a)
		}
	}
	for _, m := range w.Methods {
		if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return nil, postern.Errorf(postern.Invalid, "%q is not a method like GET, in capitals", m)
		}
	}
	if len(w.Addresses) > 0 {
		rules = append(rules, "address.within(["+quoted(w.Addresses)+"])")
	}
	if len(w.Methods) > 0 {
		rules = append(rules, "request.method in ["+quoted(w.Methods)+"]")
	}
	return rules, nil
}

func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return strings.Join(out, ", ")
}

// Networks returns the networks from which every request passes by this way; nil unless
// addresses are the way's only condition.
func (w Way) Networks() (list []netip.Prefix) {
	if !w.Anyone || len(w.Methods)+len(w.Rules) > 0 {
		return nil
	}
	for _, a := range w.Addresses {
		if p, ok := network(a); ok {
			list = append(list, p)
		}
	}
	return list
}

// decide reports whether the subject passes by this way. A way that asks for a
// certificate needs one that was verified.
func (w *way) decide(s *Subject) Reason {
	switch {
	case !w.anyone && !w.named(s):
		return NotPerson
	case !w.rulesHold(s):
		return RuleFailed
	}
	return OK
}

// rulesHold reports whether all rules hold, for each way in which servers may
// read the path, since what opens /public must not open /public/../secret, and
// for each method by which an application may take the request.
func (w *way) rulesHold(s *Subject) bool {
	if !w.moving {
		return w.hold(s)
	}
	var readings Readings
	if plain(s.Request.Path) {
		readings.add(s.Request.Path)
	} else {
		readings.addShapes(s.Request.Path)
	}
	methods := overrides(s.Request)
	if readings.n == 1 && len(methods) == 0 {
		return w.hold(s)
	}
	for _, m := range append(methods, s.Request.Method) {
		for _, p := range readings.all[:readings.n] {
			request := *s.Request
			request.Method, request.Path = m, p
			if !w.hold(&Subject{Verified: s.Verified, Holder: s.Holder, Request: &request}) {
				return false
			}
		}
	}
	return true
}

func (w *way) hold(s *Subject) bool {
	return !slices.ContainsFunc(w.rules, func(r *Rule) bool { return !r.holds(s) })
}

// overrideHeaders are those by which a client names another method than the request's to
// some applications, lower-case with dashes.
var overrideHeaders = []string{"x-http-method-override", "x-http-method", "x-method-override"}

// overrides returns the methods that headers and the query's _method name in
// place of the request's.
func overrides(r *Request) (methods []string) {
	for name, values := range r.Header {
		if len(name) >= len("x-http-method") && name[0]|0x20 == 'x' && isOverride(name) {
			for _, v := range values {
				methods = appendMethods(methods, v)
			}
		}
	}
	if !strings.Contains(strings.ToLower(r.Query), "method") && !strings.Contains(r.Query, "%") {
		return methods
	}
	for pair := range strings.FieldsFuncSeq(r.Query, func(c rune) bool { return c == '&' || c == ';' }) {
		key, value, _ := strings.Cut(pair, "=")
		if strings.EqualFold(asPHP(unescaped(key)), "_method") {
			methods = appendMethods(methods, unescaped(value))
		}
	}
	return methods
}

// asPHP is a name in a query as PHP reads it.
func asPHP(key string) string {
	key, _, _ = strings.Cut(strings.TrimSpace(key), "\x00")
	return strings.NewReplacer(".", "_", "[", "_", " ", "_").Replace(key)
}

func isOverride(name string) bool {
	name = strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
	return slices.Contains(overrideHeaders, name)
}

// unescaped decodes a part of a query; what cannot be decoded stays as it is.
func unescaped(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

func appendMethods(to []string, value string) []string {
	for m := range strings.SplitSeq(value, ",") {
		to = append(to, strings.ToUpper(strings.TrimSpace(m)))
	}
	return to
}

// named reports whether the holder is one of the persons, or in one of the groups,
// that the way names. An address also matches a certificate of another CA
// that names this address alone.
func (w *way) named(s *Subject) bool {
	if len(w.persons) == 0 && len(w.groups) == 0 {
		return true
	}
	h := s.Holder
	for _, group := range w.groups {
		if slices.Contains(h.Groups, group) {
			return true
		}
	}
	for _, p := range w.persons {
		if h.Name != "" && (p == h.Name || p == h.Email) {
			return true
		}
	}
	if s.Verified.Own {
		return false
	}
	emails := s.Verified.Leaf().Emails()
	return len(emails) == 1 && slices.Contains(w.persons, emails[0])
}
