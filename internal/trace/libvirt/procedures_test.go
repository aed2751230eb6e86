package libvirt

import (
	"testing"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/event"
)

// TestProceduresByNameAndNumber: what no table knows is chosen by number, and with all
// of its program.
func TestProceduresByNameAndNumber(t *testing.T) {
	const remote, qemu = 0x20008086, 0x20008087
	for _, c := range []struct {
		programs, globs []string
		in, out         event.Procedure
	}{
		{
			nil,
			[]string{"domain_destroy"},
			event.Procedure{Prog: remote, Proc: 12},
			event.Procedure{Prog: remote, Proc: 13},
		},
		{nil, []string{"remote.12"}, event.Procedure{Prog: remote, Proc: 12}, event.Procedure{Prog: remote, Proc: 13}},
		{
			nil,
			[]string{"remote.600"},
			event.Procedure{Prog: remote, Proc: 600},
			event.Procedure{Prog: qemu, Proc: 600},
		},
		{nil, []string{"remote.*"}, event.Procedure{Prog: remote, Proc: 600}, event.Procedure{Prog: qemu, Proc: 1}},
		{nil, []string{"4711.3"}, event.Procedure{Prog: 4711, Proc: 3}, event.Procedure{Prog: remote, Proc: 3}},
		{[]string{"qemu"}, nil, event.Procedure{Prog: qemu, Proc: 90}, event.Procedure{Prog: remote, Proc: 600}},
		{
			[]string{"remote", "lxc"},
			[]string{"*_open*"},
			event.Procedure{Prog: remote, Proc: 1},
			event.Procedure{Prog: remote, Proc: 2},
		},
	} {
		set, err := Procedures(c.programs, c.globs)
		if err != nil || !set[c.in] || set[c.out] {
			t.Errorf("%q of %q: %v is in: %v; %v is in: %v; %v", c.globs, c.programs, c.in, set[c.in], c.out,
				set[c.out], err)
		}
	}
	for _, globs := range [][]string{{"nope_*"}, {"remote.0"}, {"remote.-1"}, {"nope.3"}, {"["}} {
		if set, err := Procedures(nil, globs); postern.CodeOf(err) != postern.Invalid {
			t.Errorf("%q: %v %v", globs, set, err)
		}
	}
	if set, err := Procedures(nil, nil); set != nil || err != nil {
		t.Error(set, err)
	}
}
