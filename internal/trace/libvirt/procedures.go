package libvirt

import (
	"path"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
)

// newer is how many procedures a libvirt may have that the tables do not know, for
// each program. Since 2010 a release has brought some five.
const newer = 256

// Known returns the number of the last procedure of each program that the tables know.
func Known() map[uint32]int32 {
	last := map[uint32]int32{}
	for _, p := range Programs() {
		last[p.Number] = int32(len(p.Procedures))
	}
	return last
}

// Newer returns the procedures of a program that a newer libvirt than that of the
// tables may have.
func Newer(prog uint32) []event.Procedure {
	known := 0
	if p, _ := Lookup(prog, 0); p != nil {
		known = len(p.Procedures)
	}
	out := make([]event.Procedure, newer)
	for i := range out {
		out[i] = event.Procedure{Prog: prog, Proc: int32(known + i + 1)}
	}
	return out
}

// Procedures returns the procedures that globs name, in the programs that are named;
// nil when neither are. A glob is a name as of [Match], or program.number for a
// procedure that the tables do not know. A program is a name or a number.
func Procedures(names, globs []string) (map[event.Procedure]bool, error) {
	if len(names) == 0 && len(globs) == 0 {
		return nil, nil
	}
	if len(globs) == 0 {
		globs = []string{"*.*"}
	}
	in := map[uint32]bool{}
	for _, name := range names {
		found := programsOf(name)
		if len(found) == 0 {
			return nil, postern.Errorf(postern.Invalid, "there is no RPC program %q", name)
		}
		for _, p := range found {
			in[p] = true
		}
	}
	set := map[event.Procedure]bool{}
	for _, g := range globs {
		found := proceduresOf(g)
		if len(found) == 0 {
			return nil, postern.Errorf(postern.Invalid, "no procedure fits %q", g).
				WithHint("names are as in domain_create_xml; globs take * and ?; one without a name is remote.456")
		}
		for _, p := range found {
			if len(in) == 0 || in[p.Prog] {
				set[p] = true
			}
		}
	}
	return set, nil
}

// programsOf returns the numbers of the programs that a glob names, or that it is.
func programsOf(glob string) []uint32 {
	if n, err := strconv.ParseUint(glob, 10, 32); err == nil {
		return []uint32{uint32(n)}
	}
	var out []uint32
	for _, p := range Programs() {
		if ok, err := path.Match(glob, p.Name); err == nil && ok {
			out = append(out, p.Number)
		}
	}
	return out
}

// proceduresOf returns the procedures that a glob names. All of a program's include
// those that no table knows.
func proceduresOf(glob string) []event.Procedure {
	var out []event.Procedure
	for _, n := range Match(glob) {
		out = append(out, event.Procedure{Prog: n.Program.Number, Proc: n.Procedure.Number})
	}
	prog, proc, dotted := strings.Cut(glob, ".")
	if !dotted {
		return out
	}
	n, err := strconv.ParseInt(proc, 10, 32)
	for _, p := range programsOf(prog) {
		switch {
		case proc == "*":
			out = append(out, Newer(p)...)
		case err == nil && n > 0:
			out = append(out, event.Procedure{Prog: p, Proc: int32(n)})
		}
	}
	return out
}
