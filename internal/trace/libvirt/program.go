package libvirt

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// procedureEnum is an enum that lists a program's procedures.
type procedureEnum struct {
	name            string
	prefix          string // of the names of its constants: REMOTE; "" of other enums
	number, version uint32
	members         []word // the procedures, with the annotations in the comments before them
	numbers         []int64
}

// find finds out of which program an enum lists the procedures: X_PROGRAM, where they
// are called X_PROC_….
func (e *procedureEnum) find(constants map[string]int64) {
	prefix, _, _ := strings.Cut(e.members[0].text, "_PROC_")
	number, ok := constants[prefix+"_PROGRAM"]
	if !ok || number < 0 || number > math.MaxUint32 {
		return
	}
	for _, m := range e.members {
		if !strings.HasPrefix(m.text, prefix+"_PROC_") {
			return
		}
	}
	e.prefix, e.number, e.version = prefix, uint32(number), 1
	for _, name := range []string{"_PROTOCOL_VERSION", "_PROGRAM_VERSION"} {
		if v := constants[prefix+name]; v > 0 && v <= math.MaxUint32 {
			e.version = uint32(v)
		}
	}
}

// procedures adds a list of procedures. Known ones that it has not, an older libvirt's
// list, stay.
func (s *source) procedures(e procedureEnum) error {
	name := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(e.prefix, "VIR_"), "_PROTOCOL"))
	at := slices.IndexFunc(s.programs, func(p programSource) bool { return p.name == name || p.number == e.number })
	if at < 0 {
		at = len(s.programs)
		s.programs = append(s.programs, programSource{name: name, number: e.number, version: e.version})
	}
	p := &s.programs[at]
	if p.name != name || p.number != e.number {
		return fmt.Errorf("program %s is %d, not %s %d", p.name, p.number, name, e.number)
	}
	for i, m := range e.members {
		switch pr := s.procedure(e, m); {
		case e.numbers[i] != int64(i+1):
			return fmt.Errorf("line %d: %s is not procedure %d", m.line, m.text, i+1)
		case i < len(p.procedures):
			p.procedures[i] = pr
		default:
			p.procedures = append(p.procedures, pr)
		}
	}
	return nil
}

var annotation = regexp.MustCompile(`@(acl|readstream|writestream): *(\S+)`)

// procedure finds the types of a procedure's payloads by their names.
func (s *source) procedure(e procedureEnum, m word) procedureSource {
	name := strings.ToLower(strings.TrimPrefix(m.text, e.prefix+"_PROC_"))
	pr := procedureSource{name: name, args: s.payload(e, name, "args"), ret: s.payload(e, name, "ret")}
	if event := s.payload(e, name, "msg"); event != "" {
		pr.args, pr.traits = event, traitEvent
	}
	var permissions []string
	for _, a := range annotation.FindAllStringSubmatch(m.comment, -1) {
		switch a[1] {
		case "acl":
			permissions = append(permissions, a[2])
		case "readstream":
			pr.traits |= traitReadstream
		case "writestream":
			pr.traits |= traitWritestream
		}
	}
	pr.acl = strings.Join(permissions, ",")
	return pr
}

// payload returns the struct for what a procedure is given, returns or notifies of, ""
// for none: remote_domain_create_args in the program of enum remote_procedure,
// virLockSpaceProtocolRegisterArgs in that of virLockSpaceProtocolProcedure.
func (s *source) payload(e procedureEnum, procedure, what string) string {
	name := ""
	if base, ok := strings.CutSuffix(e.name, "_procedure"); ok {
		name = base + "_" + procedure + "_" + what
	} else {
		base, _ := strings.CutSuffix(e.name, "Procedure")
		name = base + camel(procedure) + camel(what)
	}
	if s.types[name].word != "struct" {
		return ""
	}
	return name
}

// camel turns open_log_file into OpenLogFile.
func camel(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}
