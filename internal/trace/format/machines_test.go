package format

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/tracetest"
)

// TestMachinesOfOneName: two machines of one name are two rows, with their UUIDs, and a machine
// whose name no other has is called by that alone.
func TestMachinesOfOneName(t *testing.T) {
	one, two := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16)
	const uuid1, uuid2 = "01010101-0101-0101-0101-010101010101", "02020202-0202-0202-0202-020202020202"
	tally, err := NewTally(ByDomain)
	if err != nil {
		t.Fatal(err)
	}
	call := func(name string, uuid []byte) {
		const getInfo = 16
		e := tracetest.Message(1, event.ServerTx, getInfo, 1, 0, 1, nil)
		args := append(append(tracetest.String(name), uuid...), tracetest.Word(5)...)
		e.Call = &event.Call{Prog: e.Prog, Proc: getInfo, End: 1, Args: args, ArgsLen: len(args)}
		e.Took = time.Millisecond
		if err := tally.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	rows := func() string {
		var names []string
		for _, r := range tally.Rows("name") {
			names = append(names, r.Name)
		}
		return strings.Join(names, ", ")
	}
	call("vm1", one)
	call("vm2", one)
	if got, want := rows(), "vm1, vm2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	call("vm1", two)
	call("vm1", one)
	if got, want := rows(), "vm1 ("+uuid1+"), vm1 ("+uuid2+"), vm2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	var m Machines
	m.Key("vm1", one)
	for _, c := range []struct {
		name string
		uuid []byte
		want string
	}{
		{"vm1", nil, "vm1"},
		{"", one, "vm1"},
		{"", two, ""},
		{"vm1", two, "vm1 (" + uuid2 + ")"},
		{"vm1", nil, "vm1 (one of several)"},
		{"", two, "vm1 (" + uuid2 + ")"},
		{"vm1", one, "vm1"},
		{"a\x1bb", nil, `a\x1bb`},
	} {
		if got := m.Key(c.name, c.uuid); got != c.want {
			t.Errorf("%q %x: %q, want %q", c.name, c.uuid, got, c.want)
		}
	}
	if got := m.Label("vm1"); got != "vm1 ("+uuid1+")" {
		t.Error(got)
	}
}
