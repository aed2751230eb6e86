package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/postern-project/postern/internal/terminal"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/usdt"
	"github.com/spf13/cobra"
)

func newTraceProbes(a *app) *cobra.Command {
	o := &traceOptions{}
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "probes",
		Short: "List libvirt's files and the probes in them",
		Long: `List every file of libvirt with probes that a process of this host has mapped or that
stands in its usual place, its build and how many probes it carries, and which of
the probes that libvirt has in its sources are missing. With --all each place of each
probe, and the files that hold none.`,
		Example: `  postern trace probes
  postern trace probes --all --path /usr/lib/x86_64-linux-gnu/libvirt.so.0`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			libs, err := capture.Find(cfg)
			if err != nil {
				return err
			}
			if !all {
				libs = withProbes(libs)
			}
			if asJSON {
				return terminal.List(a.printer(), probeList(libs), true, "", nil)
			}
			return printProbes(a.out, libs, all)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.pids, "pid", nil, "only these processes, by `PID`")
	f.StringSliceVar(&o.paths, "path", nil, "only these `FILE`s")
	jsonFlag(c, &asJSON)
	f.BoolVar(&all, "all", false, "list each place of each probe, with its arguments, and files without probes")
	return c
}

// withProbes leaves out the files that were read and hold no probe.
func withProbes(libs []*capture.Library) []*capture.Library {
	return slices.DeleteFunc(libs, func(l *capture.Library) bool { return errors.Is(l.Err, usdt.ErrNoProbes) })
}

func printProbes(w io.Writer, libs []*capture.Library, all bool) error {
	for _, l := range libs {
		fmt.Fprintf(w, "%s\n", l.Path)
		fmt.Fprintf(w, "  build %s, %s\n", orUnknown(l.BuildID), l.Machine)
		if len(l.PIDs) > 0 {
			fmt.Fprintf(w, "  mapped by %s\n", joinInts(l.PIDs))
		}
		if l.Err != nil {
			fmt.Fprintf(w, "  no probes: %v\n", l.Err)
			continue
		}
		names := map[string]bool{}
		for _, p := range l.Probes {
			names[p.Name] = true
		}
		fmt.Fprintf(w, "  %d probes in %d places\n", len(names), len(l.Probes))
		if missing := l.Missing(); len(missing) > 0 {
			fmt.Fprintf(w, "  missing: %s\n", strings.Join(missing, " "))
		}
		if !all {
			continue
		}
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, p := range l.Probes {
			note := p.Spec
			if p.Err != nil {
				note += "  (not readable: " + p.Err.Error() + ")"
			}
			fmt.Fprintf(tw, "    %s:%s\t0x%x\t%s\n", p.Provider, p.Name, p.Addr, note)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func joinInts(n []int) string {
	s := make([]string, len(n))
	for i, v := range n {
		s[i] = strconv.Itoa(v)
	}
	return strings.Join(s, ", ")
}

// The JSON of trace probes.
type (
	probeFile struct {
		Path    string       `json:"path"`
		Build   string       `json:"build,omitempty"`
		Machine string       `json:"machine"`
		PIDs    []int        `json:"pids,omitempty"`
		Error   string       `json:"error,omitempty"`
		Probes  []probePlace `json:"probes,omitempty"`
		Missing []string     `json:"missing,omitempty"`
	}
	probePlace struct {
		Name      string `json:"name"`
		Address   uint64 `json:"address"`
		Semaphore bool   `json:"semaphore"`
		Arguments string `json:"arguments"`
		Error     string `json:"error,omitempty"`
	}
)

func probeList(libs []*capture.Library) []probeFile {
	out := []probeFile{}
	for _, l := range libs {
		f := probeFile{Path: l.Path, Build: l.BuildID, Machine: l.Machine, PIDs: l.PIDs, Missing: l.Missing()}
		if l.Err != nil {
			f.Error = l.Err.Error()
		}
		for _, p := range l.Probes {
			place := probePlace{Name: p.Provider + ":" + p.Name, Address: p.Addr, Semaphore: p.Semaphore != 0, Arguments: p.Spec}
			if p.Err != nil {
				place.Error = p.Err.Error()
			}
			f.Probes = append(f.Probes, place)
		}
		out = append(out, f)
	}
	return out
}
