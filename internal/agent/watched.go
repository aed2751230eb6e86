package agent

import (
	"strings"

	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// condition says when a call of a procedure is reported.
type condition uint8

const (
	always  condition = iota + 1
	secrets           // when its flags ask for secrets
)

// Watched are the procedures whose calls are reported; nil means all. Those that no table
// knows, of newer libvirts and of unknown programs, are one of them: the zero procedure.
type Watched map[event.Procedure]condition

var unknown event.Procedure

// Watch returns the procedures that the globs name, or without any those that matter
// to security: whatever changes something, or reads a secret, and what is not known.
func Watch(globs []string) (Watched, error) {
	named, err := libvirt.Procedures(nil, globs)
	if err != nil {
		return nil, err
	}
	w := Watched{}
	for p := range named {
		w[p] = always
	}
	if named != nil {
		return w, nil
	}
	w[unknown] = always
	for _, prog := range libvirt.Programs() {
		for _, p := range prog.Procedures {
			if c := conditionOf(prog.Name, p.Name, p.ACL); c != 0 {
				w[event.Procedure{Prog: prog.Number, Proc: p.Number}] = c
			}
		}
	}
	return w, nil
}

// filter returns a filter that lets these procedures pass.
func (w Watched) filter() correlate.Filter {
	f := correlate.Filter{Connections: true}
	if w == nil {
		return f
	}
	f.Unknown, f.Procedures = w[unknown] != 0, map[event.Procedure]bool{}
	for p := range w {
		if p != unknown {
			f.Procedures[p] = true
		}
	}
	return f
}

// of returns when a call of a procedure is reported; 0 means never.
func (w Watched) of(prog uint32, proc int32) condition {
	if w == nil {
		return always
	}
	if when := w[event.Procedure{Prog: prog, Proc: proc}]; when != 0 {
		return when
	}
	if _, known := libvirt.Lookup(prog, proc); known != nil {
		return 0
	}
	return w[unknown]
}

// conditionOf decides by the permissions that libvirt requires of a caller: all but
// reading and listing are reported. Those that are required on a condition only are
// ignored, except for secrets in a description. The admin program has no permissions:
// its procedures are decided about by name.
func conditionOf(program, name, acl string) condition {
	if program == "admin" {
		for _, harmless := range []string{"_get_", "_list_", "_lookup_", "connect_open", "connect_close"} {
			if strings.Contains(name, harmless) {
				return 0
			}
		}
		return always
	}
	found := condition(0)
	for permission := range strings.SplitSeq(acl, ",") {
		_, what, _ := strings.Cut(permission, ":")
		what, limit, _ := strings.Cut(what, ":")
		switch {
		case what == "read_secure" && limit != "":
			found = max(found, secrets)
		case what == "", what == "getattr", what == "read", strings.HasPrefix(what, "search_"), limit != "":
		default:
			return always
		}
	}
	return found
}

// capitals are the words that libvirt's API writes in capitals.
var capitals = map[string]string{
	"xml": "XML", "uuid": "UUID", "id": "ID", "cpu": "CPU", "nmi": "NMI", "pm": "PM", "fd": "FD", "tls": "TLS",
	"os": "OS", "io": "IO",
}

// apiName returns a procedure's name as programs call it, domainDestroy for
// domain_destroy; of other programs than remote with the program before it.
func apiName(prog uint32, proc int32) string {
	words := strings.Split(libvirt.ProcedureName(prog, proc), "_")
	for i, w := range words {
		switch {
		case i == 0 || w == "":
		case capitals[w] != "":
			words[i] = capitals[w]
		default:
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	name := strings.Join(words, "")
	if program := libvirt.ProgramName(prog); program != "remote" {
		name = program + "." + name
	}
	return name
}
