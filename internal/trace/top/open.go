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
	for i := range m.open[:min(len(m.open), mostOpen)] {
		e := &m.open[i]
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
		machine := ""
		if e.Call.Domain != "" {
			machine = " on " + string(libvirt.AppendPrintable(nil, e.Call.Domain))
		}
		fmt.Fprintf(w, "%8s  %s.%s%s of %s\n", format.Duration(e.Took), libvirt.ProgramName(e.Prog),
			libvirt.ProcedureName(e.Prog, e.Proc), machine, who)
	}
}
