package top

import (
	"fmt"
	"io"
	"time"

	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Of the open calls those are shown that run for so long, and no more than so many.
const (
	openFor  = 100 * time.Millisecond
	mostOpen = 10
)

// writeOpen writes the calls that have no answer yet, the oldest first.
func (m *Model) writeOpen(w io.Writer) {
	open := m.open[:min(len(m.open), mostOpen)]
	machines := make([]string, len(open))
	for i := range open {
		machines[i] = m.machines.Of(&m.dec, &open[i])
	}
	for i := range open {
		e := &open[i]
		if e.Took < openFor {
			return
		}
		if i == 0 {
			fmt.Fprintf(w, "\n%8s  %s\n", "OPEN FOR", "CALL")
		}
		who := format.Short(nil, e.Comm, 16)
		if e.Server() && e.Peer != nil {
			who = format.Client(nil, e.Peer)
		}
		machine := m.machines.Label(machines[i])
		if machine != "" {
			machine = " on " + machine
		}
		fmt.Fprintf(w, "%8s  %s.%s%s of %s\n", format.Duration(e.Took), libvirt.ProgramName(e.Prog),
			libvirt.ProcedureName(e.Prog, e.Proc), machine, who)
	}
}
