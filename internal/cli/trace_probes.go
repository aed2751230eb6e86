package cli

import (
	"errors"
	"slices"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/usdt"
	"github.com/spf13/cobra"
)

func newTraceProbes(a *app) *cobra.Command {
	o := newTraceOptions(0)
	var all bool
	c := &cobra.Command{Use: "probes", Short: "List libvirt's files and the probes in them"}
	asJSON := jsonFlag(c)
	c.RunE = func(*cobra.Command, []string) error { return o.probes(a, *asJSON, all) }
	o.processes(c)
	f := c.Flags()
	f.StringSliceVar(&o.cfg.Paths, "path", nil, "only these `FILE`s")
	f.BoolVar(&all, "all", false, "list each place of each probe, with its arguments, and files without probes")
	return c
}

func (o *traceOptions) probes(a *app, asJSON, all bool) error {
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	libs, err := capture.Find(cfg)
	if err != nil {
		return err
	}
	if !all {
		libs = slices.DeleteFunc(libs, func(l *capture.Library) bool { return errors.Is(l.Err, usdt.ErrNoProbes) })
	}
	files := format.Libraries(libs)
	if asJSON {
		return terminal.List(a.printer(), files, true, "", nil)
	}
	for _, file := range files {
		if err := file.WriteText(a.out, all); err != nil {
			return err
		}
	}
	return nil
}
