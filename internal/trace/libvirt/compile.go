package libvirt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// compiler makes tables of a source. Its first error ends it.
type compiler struct {
	*source
	out    *tables
	index  map[string]uint16 // of types, by spelling
	listed map[string]uint16 // of tables of names
	depth  int
	err    error
}

// maxDepth is how deep types may be nested: libvirt's reach 6. It bounds the decoder's
// recursion.
const maxDepth = 32

func (s *source) compile() (*tables, error) {
	c := compiler{
		source: s, out: &tables{types: []typeInfo{{}}}, index: map[string]uint16{"": 0},
		listed: map[string]uint16{},
	}
	for _, p := range s.programs {
		out := Program{Name: p.name, Number: p.number, Version: p.version}
		for i, pr := range p.procedures {
			out.Procedures = append(out.Procedures, Procedure{
				Name: pr.name, ACL: pr.acl, Number: int32(i + 1), args: c.use(pr.args), ret: c.use(pr.ret),
				traits: pr.traits,
			})
		}
		c.out.programs = append(c.out.programs, out)
	}
	c.out.errorType, c.out.holeType = c.use("virNetMessageError"), c.use("virNetStreamHole")
	c.out.errorCode = c.table("error_code")
	if len(c.out.types) > math.MaxUint16 || len(c.out.fields) > math.MaxUint16 || len(c.out.names) > math.MaxUint16 {
		c.fail("there are too many types")
	}
	return c.out, c.err
}

func (c *compiler) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// use returns the number of the type that is spelt so. 0 is no type.
func (c *compiler) use(spelling string) uint16 {
	if i, ok := c.index[spelling]; ok || c.err != nil {
		return i
	}
	if c.depth == maxDepth {
		c.fail("%s contains itself, or is nested too deep", spelling)
		return 0
	}
	c.depth++
	defer func() { c.depth-- }()
	if a, ok := c.aliases[spelling]; ok {
		return c.use(a)
	}
	t := c.resolve(spelling)
	c.out.types = append(c.out.types, t)
	c.index[spelling] = uint16(len(c.out.types) - 1)
	return c.index[spelling]
}

func (c *compiler) resolve(s string) typeInfo {
	if elem, ok := strings.CutPrefix(s, "?"); ok {
		return typeInfo{kind: kOptional, elem: c.use(elem)}
	}
	if elem, n, ok := strings.Cut(strings.TrimRight(s, ">]"), "<"); ok {
		return c.array(elem, false, n)
	}
	if elem, n, ok := strings.Cut(strings.TrimRight(s, ">]"), "["); ok {
		return c.array(elem, true, n)
	}
	if k, ok := basic[s]; ok {
		return typeInfo{kind: k}
	}
	return c.defined(s)
}

var basic = map[string]Kind{
	"int": kInt, "unsigned_int": kUint, "hyper": kHyper, "unsigned_hyper": kUhyper, "double": kDouble, "bool": kInt,
	"char": kInt, "unsigned_char": kUint, "short": kInt, "unsigned_short": kUint,
}

// defined resolves a struct, a union or an enum.
func (c *compiler) defined(name string) typeInfo {
	d := c.types[name]
	t := typeInfo{name: name, object: objects[name]}
	switch d.word {
	case "enum":
		return typeInfo{kind: kEnum, name: name, elem: c.table(name)}
	case "union":
		t.kind = kUnion
	case "struct":
		if t.kind = kStruct; strings.HasSuffix(name, "_typed_param") && len(d.members) == 2 {
			t.kind = kParam
		}
	default:
		c.fail("there is no type %s", name)
		return t
	}
	if len(d.members) == 0 {
		c.fail("%s is empty: an array of it would not be bounded by its bytes", name)
	}
	var fields []fieldInfo
	for _, m := range d.members {
		fields = append(fields, c.field(name, m))
	}
	t.elem, t.count = uint16(len(c.out.fields)), uint32(len(fields))
	c.out.fields = append(c.out.fields, fields...)
	return t
}

func (c *compiler) field(owner string, m member) fieldInfo {
	f := fieldInfo{name: m.name, typ: c.use(m.typ), arm: int32(m.value)}
	h, ok := c.hints[owner+"."+m.name]
	switch {
	case ok:
		f.hint = h.hint
		if h.table != "" {
			f.table = c.table(h.table)
		}
	case c.foreign[owner] && (secretName([]byte(owner)) || secretName([]byte(m.name))):
		f.hint = hintSecret // the file does not say that it is none
	}
	return f
}

func (c *compiler) array(elem string, fixed bool, count string) typeInfo {
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		c.fail("%s of %q: %w", elem, count, err)
	}
	size := uint32(min(n, MaxMessage)) // there cannot be more in a message
	switch {
	case fixed && n == 0:
		c.fail("%s[0] is empty: an array of it would not be bounded by its bytes", elem)
	case elem == "string" && !fixed:
		return typeInfo{kind: kString, count: size}
	case elem == "opaque" && fixed && n == 16:
		return typeInfo{kind: kUUID, count: size}
	case elem == "opaque" && !fixed:
		return typeInfo{kind: kOpaque, count: size}
	case elem == "char" && fixed:
		return typeInfo{kind: kFixedChars, count: size}
	case elem == "char":
		return typeInfo{kind: kChars, count: size}
	case !fixed:
		return typeInfo{kind: kArray, elem: c.use(elem), count: size}
	}
	c.fail("%s[%d] is a type that libvirt has not used so far", elem, n)
	return typeInfo{}
}

// table returns the number of a table of names, or of an enum's values.
func (c *compiler) table(name string) uint16 {
	if i, ok := c.listed[name]; ok {
		return i
	}
	list, ok := c.tables[name]
	if d := c.types[name]; d.word == "enum" && !ok {
		list, ok = readable(d.members), true
	}
	if !ok {
		c.fail("there is no table %s", name)
	}
	c.out.names = append(c.out.names, list)
	c.listed[name] = uint16(len(c.out.names) - 1)
	return c.listed[name]
}

// readable makes names of a C enum readable: lower case, without what all begin with.
func readable(values []member) (list []named) {
	prefix := values[0].name
	for _, v := range values {
		for !strings.HasPrefix(v.name, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	prefix = prefix[:strings.LastIndex(prefix, "_")+1]
	for _, v := range values {
		list = append(list, named{v.value, strings.ToLower(strings.TrimPrefix(v.name, prefix))})
	}
	return list
}

var objects = map[string]ObjectKind{
	"remote_nonnull_domain": ObjectDomain, "remote_nonnull_network": ObjectNetwork,
	"remote_nonnull_network_port": ObjectNetworkPort,
	"remote_nonnull_nwfilter":     ObjectNWFilter, "remote_nonnull_nwfilter_binding": ObjectNWFilterBinding,
	"remote_nonnull_interface": ObjectInterface, "remote_nonnull_storage_pool": ObjectStoragePool,
	"remote_nonnull_storage_vol": ObjectStorageVol, "remote_nonnull_node_device": ObjectNodeDevice,
	"remote_nonnull_secret":            ObjectSecret,
	"remote_nonnull_domain_checkpoint": ObjectCheckpoint, "remote_nonnull_domain_snapshot": ObjectSnapshot,
	"virNetMessageNonnullDomain": ObjectDomain, "virNetMessageNonnullNetwork": ObjectNetwork,
	"virLogManagerProtocolDomain": ObjectDomain,
}
