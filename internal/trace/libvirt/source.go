package libvirt

import (
	"fmt"
	"strconv"
	"strings"
)

// source describes the protocol by names, from which tables are made.
type source struct {
	programs []programSource
	types    map[string]definition
	aliases  map[string]string // a name, and how its type is spelt
	tables   map[string][]named
	hints    map[string]hintSource // of STRUCT.FIELD
	foreign  map[string]bool       // structs that only a user's protocol file has
}

type programSource struct {
	name            string
	number, version uint32
	procedures      []procedureSource
}

// procedureSource names the types of a procedure's payloads; "" for none.
type procedureSource struct {
	name, acl, args, ret string
	traits               trait
}

// definition is a struct, a union or an enum.
type definition struct {
	word    string
	members []member
}

// member is a field, or a value of an enum. A type is spelt as in protocol.txt.
type member struct {
	name, typ string
	value     int64 // of an enum; of a union: the discriminant that selects it
}

type hintSource struct {
	hint  hint
	table string
}

// readTables reads protocol.txt, whose grammar is, one item a line, # starting a comment:
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
func readTables(text string) (*source, error) {
	s := &source{
		types: map[string]definition{}, aliases: map[string]string{}, tables: map[string][]named{},
		hints: map[string]hintSource{}, foreign: map[string]bool{},
	}
	var in *programSource
	n := 0
	for line := range strings.Lines(text) {
		n++
		w := strings.Fields(line)
		var err error
		switch {
		case len(w) == 0:
			in = nil
		case strings.HasPrefix(line, "#"):
		case in != nil:
			err = in.add(w)
		case w[0] == "program":
			in, err = s.program(w)
		default:
			err = s.item(w)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return s, nil
}

func (s *source) program(w []string) (*programSource, error) {
	if len(w) != 4 {
		return nil, fmt.Errorf("a program is a name, a number and a version")
	}
	number, err := strconv.ParseUint(w[2], 10, 32)
	if err != nil {
		return nil, err
	}
	version, err := strconv.ParseUint(w[3], 10, 32)
	if err != nil {
		return nil, err
	}
	s.programs = append(s.programs, programSource{name: w[1], number: uint32(number), version: uint32(version)})
	return &s.programs[len(s.programs)-1], nil
}

func (p *programSource) add(w []string) error {
	if n, err := strconv.Atoi(w[0]); err != nil || n != len(p.procedures)+1 || len(w) < 2 {
		return fmt.Errorf("program %s: procedure %s is out of order", p.name, w[0])
	}
	pr := procedureSource{name: w[1]}
	for _, kv := range w[2:] {
		switch k, v, _ := strings.Cut(kv, "="); k {
		case "args":
			pr.args = v
		case "ret":
			pr.ret = v
		case "event":
			pr.args, pr.traits = v, traitEvent
		case "acl":
			pr.acl = v
		case "readstream":
			pr.traits |= traitReadstream
		case "writestream":
			pr.traits |= traitWritestream
		default:
			return fmt.Errorf("procedure %s: unknown word %q", pr.name, kv)
		}
	}
	p.procedures = append(p.procedures, pr)
	return nil
}

// item takes a line that belongs to no program.
func (s *source) item(w []string) (err error) {
	switch {
	case len(w) < 2:
		return fmt.Errorf("%s: of what?", w[0])
	case w[0] == "secret":
		s.hints[w[1]] = hintSource{hint: hintSecret}
	case w[0] == "json":
		s.hints[w[1]] = hintSource{hint: hintJSON}
	case len(w) < 3:
		return fmt.Errorf("%s %s: what is it?", w[0], w[1])
	case w[0] == "alias":
		s.aliases[w[1]] = w[2]
	case w[0] == "table":
		s.tables[w[1]], err = values(w[2:])
	case w[0] == "names":
		s.hints[w[1]] = hintSource{hintNames, w[2]}
	case w[0] == "flags":
		s.hints[w[1]] = hintSource{hintFlags, w[2]}
	default:
		s.types[w[1]], err = define(w[0], w[2:])
	}
	return err
}

func define(word string, w []string) (definition, error) {
	d := definition{word: word}
	switch word {
	case "struct":
		for _, f := range w {
			d.members = append(d.members, fieldOf(f))
		}
	case "union":
		for _, arm := range w[1:] { // the first is the discriminant
			n, f, _ := strings.Cut(arm, "=")
			value, err := strconv.ParseInt(n, 10, 32)
			if err != nil {
				return d, err
			}
			m := fieldOf(f)
			m.value = value
			d.members = append(d.members, m)
		}
	case "enum":
		list, err := values(w)
		for _, v := range list {
			d.members = append(d.members, member{name: v.name, value: v.value})
		}
		return d, err
	default:
		return d, fmt.Errorf("unknown item %q", word)
	}
	return d, nil
}

func fieldOf(s string) member {
	name, typ, _ := strings.Cut(s, ":")
	return member{name: name, typ: typ}
}

// values reads NAME=NUMBER….
func values(w []string) (list []named, err error) {
	for _, v := range w {
		name, number, _ := strings.Cut(v, "=")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, err
		}
		list = append(list, named{n, name})
	}
	return list, nil
}
