// Gen turns protocol.txt into the tables of package libvirt: static data only,
// so that a process that never traces pays nothing for them.
//
// The grammar of protocol.txt, one item a line, # starts a comment:
//
//	program NAME NUMBER VERSION          the lines up to the next blank one are its procedures:
//	NUMBER NAME [args=TYPE] [ret=TYPE] [event=TYPE] [acl=A,B] [readstream] [writestream]
//	struct NAME FIELD:TYPE…
//	alias NAME TYPE
//	enum NAME VALUE=NUMBER…
//	union NAME FIELD:TYPE NUMBER=FIELD:TYPE…
//	table NAME VALUE=NUMBER…             names of an integer
//	names STRUCT.FIELD TABLE             the field is one of that table's numbers
//	flags STRUCT.FIELD TABLE             the field is a set of that table's bits
//	secret STRUCT.FIELD                  never shown unless asked for
//	json STRUCT.FIELD                    a string in QMP's language
//
// TYPE is a basic or a defined type, with underscores for spaces; before it ?
// for optional, after it <MAX> or [COUNT] for arrays.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"os"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	src, err := os.ReadFile("protocol.txt")
	if err != nil {
		log.Fatal(err)
	}
	g := &generator{
		source: make(map[string][]string), aliases: make(map[string]string), index: make(map[string]int),
		tables: make(map[string]int), hints: make(map[string]hint),
	}
	if err := g.read(string(src)); err != nil {
		log.Fatal(err)
	}
	out, err := format.Source(g.emit())
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("tables_gen.go", out, 0o644); err != nil {
		log.Fatal(err)
	}
}

type procedure struct {
	name, args, ret, acl string
	traits               []string
}

type program struct {
	name, number, version string
	procs                 []procedure
}

type hint struct {
	word  string // hintSecret, …
	table int
	used  bool
}

type typeInfo struct {
	kind, name  string
	elem, count int
	object      string
	fields      []field
}

type field struct {
	name string
	typ  int
	arm  int
	hint hint
}

type generator struct {
	programs []program
	source   map[string][]string // struct, enum, union: the words of its line
	order    []string
	aliases  map[string]string
	types    []typeInfo
	index    map[string]int // by spelling
	names    [][]string     // VALUE=NUMBER
	tables   map[string]int
	hints    map[string]hint
}

func (g *generator) read(src string) error {
	var in *program
	for i, line := range strings.Split(src, "\n") {
		w := strings.Fields(line)
		if len(w) == 0 {
			in = nil
			continue
		}
		switch {
		case strings.HasPrefix(line, "#"):
		case in != nil:
			if err := in.add(w); err != nil {
				return fmt.Errorf("line %d: %w", i+1, err)
			}
		case w[0] == "program":
			g.programs = append(g.programs, program{name: w[1], number: w[2], version: w[3]})
			in = &g.programs[len(g.programs)-1]
		case w[0] == "struct" || w[0] == "enum" || w[0] == "union":
			g.source[w[1]] = w
			g.order = append(g.order, w[1])
		case w[0] == "alias":
			g.aliases[w[1]] = w[2]
		case w[0] == "table":
			g.table(w[1], w[2:])
		case w[0] == "names" || w[0] == "flags":
			t, ok := g.tables[w[2]]
			if !ok {
				return fmt.Errorf("line %d: no table %s", i+1, w[2])
			}
			g.hints[w[1]] = hint{word: "hint" + strings.ToUpper(w[0][:1]) + w[0][1:], table: t}
		case w[0] == "secret" || w[0] == "json":
			g.hints[w[1]] = hint{word: map[string]string{"secret": "hintSecret", "json": "hintJSON"}[w[0]]}
		default:
			return fmt.Errorf("line %d: unknown item %q", i+1, w[0])
		}
	}
	return nil
}

func (p *program) add(w []string) error {
	if n, err := strconv.Atoi(w[0]); err != nil || n != len(p.procs)+1 {
		return fmt.Errorf("program %s: procedure %s out of order", p.name, w[0])
	}
	pr := procedure{name: w[1]}
	for _, kv := range w[2:] {
		k, v, _ := strings.Cut(kv, "=")
		switch k {
		case "args":
			pr.args = v
		case "ret":
			pr.ret = v
		case "event":
			pr.args = v
			pr.traits = append(pr.traits, "traitEvent")
		case "acl":
			pr.acl = v
		default:
			pr.traits = append(pr.traits, "trait"+strings.ToUpper(k[:1])+k[1:])
		}
	}
	p.procs = append(p.procs, pr)
	return nil
}

func (g *generator) table(name string, values []string) int {
	g.tables[name] = len(g.names)
	g.names = append(g.names, values)
	return g.tables[name]
}

var basic = map[string]string{
	"int": "Int", "unsigned_int": "Uint", "hyper": "Hyper", "unsigned_hyper": "Uhyper", "double": "Double",
	"char": "Int", "unsigned_char": "Uint", "unsigned_short": "Uint",
}

var objects = map[string]string{
	"remote_nonnull_domain": "Domain", "remote_nonnull_network": "Network",
	"remote_nonnull_network_port": "NetworkPort",
	"remote_nonnull_nwfilter":     "NWFilter", "remote_nonnull_nwfilter_binding": "NWFilterBinding",
	"remote_nonnull_interface": "Interface", "remote_nonnull_storage_pool": "StoragePool",
	"remote_nonnull_storage_vol": "StorageVol", "remote_nonnull_node_device": "NodeDevice",
	"remote_nonnull_secret":            "Secret",
	"remote_nonnull_domain_checkpoint": "Checkpoint", "remote_nonnull_domain_snapshot": "Snapshot",
	"virNetMessageNonnullDomain": "Domain", "virNetMessageNonnullNetwork": "Network",
	"virLogManagerProtocolDomain": "Domain",
}

// use returns the number of the type that is spelt so. 0 is no type.
func (g *generator) use(spelling string) int {
	if a, ok := g.aliases[spelling]; ok {
		return g.use(a)
	}
	if i, ok := g.index[spelling]; ok {
		if i == 0 {
			log.Fatalf("%s contains itself: the decoder's depth would not be bounded", spelling)
		}
		return i
	}
	g.index[spelling] = 0
	t := g.resolve(spelling)
	if len(g.types) == 0 {
		g.types = append(g.types, typeInfo{kind: "Void"})
	}
	g.types = append(g.types, t)
	g.index[spelling] = len(g.types) - 1
	return len(g.types) - 1
}

func (g *generator) resolve(s string) typeInfo {
	if elem, ok := strings.CutPrefix(s, "?"); ok {
		return typeInfo{kind: "Optional", elem: g.use(elem)}
	}
	if elem, n, ok := strings.Cut(strings.TrimRight(s, ">]"), "<"); ok {
		return g.array(elem, "", n)
	}
	if elem, n, ok := strings.Cut(strings.TrimRight(s, ">]"), "["); ok {
		return g.array(elem, "Fixed", n)
	}
	if k, ok := basic[s]; ok {
		return typeInfo{kind: k}
	}
	w := g.source[s]
	if w == nil {
		log.Fatalf("no type %s", s)
	}
	t := typeInfo{name: s, object: objects[s]}
	switch w[0] {
	case "enum":
		t.kind = "Enum"
		t.elem = g.table(s, lowered(w[2:]))
	case "union":
		t.kind = "Union"
		for _, arm := range w[3:] {
			n, f, _ := strings.Cut(arm, "=")
			num, err := strconv.Atoi(n)
			if err != nil {
				log.Fatal(err)
			}
			fl := g.field(s, f)
			fl.arm = num
			t.fields = append(t.fields, fl)
		}
	case "struct":
		t.kind = "Struct"
		if strings.HasSuffix(s, "_typed_param") {
			t.kind = "Param"
		}
		for _, f := range w[2:] {
			t.fields = append(t.fields, g.field(s, f))
		}
		if len(t.fields) == 0 {
			log.Fatalf("%s is empty: an array of it would not be bounded by its bytes", s)
		}
	}
	return t
}

func (g *generator) array(elem, fixed, count string) typeInfo {
	n, err := strconv.Atoi(count)
	if err != nil {
		log.Fatal(err)
	}
	switch {
	case elem == "string":
		return typeInfo{kind: "String", count: n}
	case elem == "opaque" && fixed != "" && n == 16:
		return typeInfo{kind: "UUID", count: n}
	case elem == "opaque" && fixed == "":
		return typeInfo{kind: "Opaque", count: n}
	case elem == "char":
		return typeInfo{kind: fixed + "Chars", count: n}
	case fixed == "":
		return typeInfo{kind: "Array", elem: g.use(elem), count: n}
	}
	log.Fatalf("no decoder for %s[%d]", elem, n)
	return typeInfo{}
}

func (g *generator) field(owner, s string) field {
	name, typ, _ := strings.Cut(s, ":")
	key := owner + "." + name
	h := g.hints[key]
	if h.word != "" {
		h.used = true
		g.hints[key] = h
	}
	return field{name: name, typ: g.use(typ), hint: h}
}

// lowered makes names of a C enum readable: lower case, without what all
// begin with.
func lowered(values []string) []string {
	prefix := values[0]
	for _, v := range values {
		for !strings.HasPrefix(v, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	prefix = prefix[:strings.LastIndex(prefix, "_")+1]
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strings.ToLower(strings.TrimPrefix(v, prefix))
	}
	return out
}

func (g *generator) emit() []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	p("// Code generated from protocol.txt by gen; DO NOT EDIT.\n\npackage libvirt\n\n")
	optional := func(s string) int {
		if s == "" {
			return 0
		}
		return g.use(s)
	}
	p("var programs = [...]Program{\n")
	for _, pr := range g.programs {
		p("{Name: %q, Number: %s, Version: %s, Procedures: []Procedure{\n", pr.name, pr.number, pr.version)
		for i, x := range pr.procs {
			p("{Number: %d, Name: %q, ACL: %q, args: %d, ret: %d", i+1, x.name, x.acl, optional(x.args),
				optional(x.ret))
			if len(x.traits) > 0 {
				p(", traits: %s", strings.Join(x.traits, "|"))
			}
			p("},\n")
		}
		p("}},\n")
	}
	p("}\n\n")
	p("const (\ntypeError = %d\ntypeHole = %d\n)\n\n", g.use("virNetMessageError"), g.use("virNetStreamHole"))
	g.emitTypes(p)
	p("var names = [...][]named{\n")
	for _, t := range g.names {
		p("{")
		for _, v := range t {
			name, num, _ := strings.Cut(v, "=")
			p("{%s, %q}, ", num, name)
		}
		p("},\n")
	}
	p("}\n\nconst (\n")
	for _, name := range []string{"error_code", "error_domain"} {
		p("table_%s = %d\n", name, g.tables[name])
	}
	p(")\n")
	for key, h := range g.hints {
		if !h.used {
			log.Fatalf("%s is in no procedure", key)
		}
	}
	return bytes.ReplaceAll(bytes.ReplaceAll(b.Bytes(), []byte("table_error_code"), []byte("tableErrorCode")),
		[]byte("table_error_domain"), []byte("tableErrorDomain"))
}

func (g *generator) emitTypes(p func(string, ...any)) {
	var fields []field
	p("var types = [...]typeInfo{\n")
	for _, t := range g.types {
		if t.fields != nil {
			t.elem, t.count = len(fields), len(t.fields)
			fields = append(fields, t.fields...)
		}
		p("{kind: k%s", t.kind)
		if t.elem != 0 {
			p(", elem: %d", t.elem)
		}
		if t.count != 0 {
			p(", count: %d", t.count)
		}
		if t.object != "" {
			p(", object: Object%s", t.object)
		}
		if t.name != "" && t.kind != "Union" {
			p(", name: %q", t.name)
		}
		p("},\n")
	}
	p("}\n\nvar fields = [...]fieldInfo{\n")
	for _, f := range fields {
		p("{name: %q, typ: %d", f.name, f.typ)
		if f.arm != 0 {
			p(", arm: %d", f.arm)
		}
		if f.hint.word != "" {
			p(", hint: %s, table: %d", f.hint.word, f.hint.table)
		}
		p("},\n")
	}
	p("}\n\n")
}
