package format

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// Library is a file of libvirt's and the probes in it, as JSON.
type Library struct {
	Path    string  `json:"path"`
	Build   string  `json:"build,omitempty"`
	Machine string  `json:"machine"`
	PIDs    []int   `json:"pids,omitempty"`
	Error   string  `json:"error,omitempty"`
	Probes  []Probe `json:"probes,omitempty"`
	// Missing are the probes that libvirt's sources have in such a file.
	Missing []string `json:"missing,omitempty"`
}

// Probe is a place of a probe in a file.
type Probe struct {
	Name      string `json:"name"`
	Address   uint64 `json:"address"`
	Semaphore bool   `json:"semaphore"`
	Arguments string `json:"arguments"`
	Error     string `json:"error,omitempty"` // why they cannot be read
}

// Libraries returns files and the probes in them as JSON has them.
func Libraries(libs []*capture.Library) []Library {
	out := make([]Library, len(libs))
	for i, l := range libs {
		out[i] = Library{
			Path: l.Path, Build: l.BuildID, Machine: l.Machine, PIDs: l.PIDs, Missing: l.Missing(),
			Error: text(l.Err),
		}
		for _, p := range l.Probes {
			out[i].Probes = append(out[i].Probes, probe(p))
		}
	}
	return out
}

func probe(p usdt.Probe) Probe {
	return Probe{
		Name: p.Provider + ":" + p.Name, Address: p.Addr, Semaphore: p.Semaphore != 0, Arguments: p.Spec,
		Error: text(p.Err),
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// WriteText writes for people what is known of a file; with places, each place of
// each probe too.
func (l Library) WriteText(w io.Writer, places bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n  build %s, %s\n", l.Path, cmp.Or(l.Build, "unknown"), l.Machine)
	if len(l.PIDs) > 0 {
		fmt.Fprintf(&b, "  mapped by %s\n", numbers(l.PIDs))
	}
	if l.Error != "" {
		fmt.Fprintf(&b, "  no probes: %s\n", l.Error)
		_, err := io.WriteString(w, b.String())
		return err
	}
	names := map[string]bool{}
	for _, p := range l.Probes {
		names[p.Name] = true
	}
	fmt.Fprintf(&b, "  %s in %s\n", terminal.Counted(len(names), "probe"), terminal.Counted(len(l.Probes), "place"))
	if len(l.Missing) > 0 {
		fmt.Fprintf(&b, "  missing: %s\n", strings.Join(l.Missing, " "))
	}
	if _, err := io.WriteString(w, b.String()); err != nil || !places {
		return err
	}
	return l.table().Print(w, terminal.Screen{})
}

// table lists the places of the probes.
func (l Library) table() terminal.Table {
	var t terminal.Table
	for _, p := range l.Probes {
		note := p.Arguments
		if p.Error != "" {
			note += "  (not readable: " + p.Error + ")"
		}
		t.Rows = append(t.Rows, []string{"    " + p.Name, "0x" + strconv.FormatUint(p.Address, 16), note})
	}
	return t
}

func numbers(n []int) string {
	s := make([]string, len(n))
	for i, v := range n {
		s[i] = strconv.Itoa(v)
	}
	return strings.Join(s, ", ")
}
