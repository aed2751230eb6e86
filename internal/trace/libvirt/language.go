package libvirt

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// constants are those of libvirt's headers that its protocol files use.
var constants = map[string]int64{
	"VIR_UUID_BUFLEN": 16, "VIR_SECURITY_MODEL_BUFLEN": 257, "VIR_SECURITY_LABEL_BUFLEN": 4097,
	"VIR_SECURITY_DOI_BUFLEN": 257,
	"VIR_TYPED_PARAM_INT":     1, "VIR_TYPED_PARAM_UINT": 2, "VIR_TYPED_PARAM_LLONG": 3, "VIR_TYPED_PARAM_ULLONG": 4,
	"VIR_TYPED_PARAM_DOUBLE": 5, "VIR_TYPED_PARAM_BOOLEAN": 6, "VIR_TYPED_PARAM_STRING": 7,
}

// protocolReader reads a protocol file. Its first error ends it.
type protocolReader struct {
	*source
	words     []word
	constants map[string]int64
	enums     []procedureEnum
	err       error
}

// readProtocol adds what a protocol file defines, and returns its lists of procedures.
func (s *source) readProtocol(text []byte) ([]procedureEnum, error) {
	list, err := words(string(text))
	if err != nil {
		return nil, err
	}
	r := protocolReader{source: s, words: list, constants: map[string]int64{}}
	for len(r.words) > 0 && r.err == nil {
		r.definition()
	}
	for i := range r.enums {
		r.enums[i].find(r.constants)
	}
	return slices.DeleteFunc(r.enums, func(e procedureEnum) bool { return e.prefix == "" }), r.err
}

// definition reads one, as of RFC 4506, section 6.2.
func (r *protocolReader) definition() {
	switch at := r.next(); at.text {
	case "const":
		name := r.name()
		r.expect("=")
		r.constants[name] = r.value()
	case "typedef":
		if m := r.declaration(); r.err == nil {
			r.aliases[m.name] = m.typ
		}
	case "enum":
		r.enum()
	case "struct":
		r.members("struct", r.name(), r.declaration)
	case "union":
		r.union()
	default:
		r.fail(at, "%q defines nothing", at.text)
	}
	r.expect(";")
}

// members reads the members of a struct or a union, in braces.
func (r *protocolReader) members(kind, name string, next func() member) {
	d := definition{word: kind}
	r.expect("{")
	for r.err == nil && !r.accept("}") {
		d.members = append(d.members, next())
		r.expect(";")
	}
	if r.err != nil {
		return
	}
	if _, ok := r.types[name]; !ok {
		r.foreign[name] = true
	}
	r.types[name] = d
}

func (r *protocolReader) union() {
	name := r.name()
	r.expect("switch")
	r.expect("(")
	r.declaration()
	r.expect(")")
	r.members("union", name, func() member {
		r.expect("case")
		value := r.value()
		r.expect(":")
		m := r.declaration()
		m.value = value
		return m
	})
}

func (r *protocolReader) enum() {
	e := procedureEnum{name: r.name()}
	d := definition{word: "enum"}
	r.expect("{")
	for last := int64(-1); r.err == nil && !r.accept("}"); {
		at := r.next()
		if last++; r.accept("=") {
			last = r.value()
		}
		r.constants[at.text] = last
		d.members = append(d.members, member{name: at.text, value: last})
		e.members, e.numbers = append(e.members, at), append(e.numbers, last)
		if !r.accept(",") {
			r.expect("}")
			break
		}
	}
	switch {
	case r.err != nil:
	case len(d.members) == 0:
		r.err = fmt.Errorf("enum %s is empty", e.name)
	default:
		r.types[e.name] = d
		r.enums = append(r.enums, e)
	}
}

// declaration reads a type and a name, and spells the type as protocol.txt does.
func (r *protocolReader) declaration() member {
	typ := r.name()
	if typ == "unsigned" {
		typ = "unsigned_int"
		for _, width := range []string{"int", "hyper", "char", "short"} {
			if r.accept(width) {
				typ = "unsigned_" + width
			}
		}
	}
	if r.accept("*") {
		return member{name: r.name(), typ: "?" + typ}
	}
	m := member{name: r.name(), typ: typ}
	switch {
	case r.accept("["):
		m.typ += "[" + r.size() + "]"
		r.expect("]")
	case r.accept("<"):
		size := strconv.Itoa(math.MaxUint32)
		if !r.is(">") {
			size = r.size()
		}
		m.typ += "<" + size + ">"
		r.expect(">")
	}
	return m
}

// size reads how many elements an array has at the most.
func (r *protocolReader) size() string {
	at := r.peek()
	n := r.value()
	if n < 0 || n > math.MaxUint32 {
		r.fail(at, "nothing has %d elements", n)
	}
	return strconv.FormatInt(n, 10)
}

// value reads a number, or the name of one.
func (r *protocolReader) value() int64 {
	at := r.next()
	if n, err := strconv.ParseInt(at.text, 0, 64); err == nil {
		return n
	}
	n, ok := r.constants[at.text]
	if !ok {
		n, ok = constants[at.text]
	}
	if !ok {
		r.fail(at, "no constant is called %q", at.text)
	}
	return n
}

// name reads a name.
func (r *protocolReader) name() string {
	at := r.next()
	if at.text == "" || !inName(at.text[0]) || at.text[0] >= '0' && at.text[0] <= '9' {
		r.fail(at, "%q is no name", at.text)
	}
	return at.text
}

func (r *protocolReader) expect(text string) {
	if at := r.next(); at.text != text {
		r.fail(at, "%q instead of %q", at.text, text)
	}
}

func (r *protocolReader) accept(text string) bool {
	if !r.is(text) {
		return false
	}
	r.next()
	return true
}

func (r *protocolReader) is(text string) bool { return r.peek().text == text }

// peek returns the next word; behind the end one without text.
func (r *protocolReader) peek() word {
	if len(r.words) == 0 || r.err != nil {
		return word{}
	}
	return r.words[0]
}

func (r *protocolReader) next() word {
	w := r.peek()
	if w.text == "" {
		r.fail(w, "the file ends too early")
		return w
	}
	r.words = r.words[1:]
	return w
}

func (r *protocolReader) fail(at word, format string, args ...any) {
	switch {
	case r.err != nil:
	case at.line == 0:
		r.err = fmt.Errorf(format, args...)
	default:
		r.err = fmt.Errorf("line %d: "+format, append([]any{at.line}, args...)...)
	}
}
