package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/inflight"
	"github.com/postern-project/postern/internal/trace/top"
	"github.com/postern-project/postern/internal/trace/usdt"
	"github.com/spf13/cobra"
)

func newTraceNow(a *app) *cobra.Command {
	o := newTraceOptions(0)
	n := inflight.Config{}
	watch := false
	c := &cobra.Command{Use: "now", Short: "Show which calls are open, what they wait for, and who is connected"}
	asJSON := jsonFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		n.Capture, n.JSON = o.cfg, *asJSON
		if !watch {
			return n.Print(a.out, a.screen)
		}
		sum, err := n.Watch(cmd.Context(), a.in, a.out, a.screen, a.watching)
		return a.traced(sum, err)
	}
	f := c.Flags()
	o.processes(f)
	f.StringSliceVar(&n.Domains, "domain", nil, "only calls about these virtual machines, by name: `GLOB`s")
	f.BoolVarP(&watch, "watch", "w", false, "look again each interval, and trace meanwhile")
	f.DurationVar(&n.Interval, "interval", time.Second, "the `DURATION` between two looks")
	f.IntVar(&n.Count, "count", 0, "end after `N` looks; 0 means never")
	return c
}

func newTraceTop(a *app) *cobra.Command {
	o := newTraceOptions(capture.RPC)
	var page top.Config
	c := o.command(a, "top", "Show which calls take libvirt's time",
		func(ctx context.Context, cfg capture.Config, _ []string) error {
			page.JSON = o.json
			sum, err := page.Trace(ctx, cfg, a.in, a.out, a.watching)
			return a.traced(sum, err)
		}, o.choose, o.rpc, o.capture)
	f := c.Flags()
	f.StringVar(&page.By, "by", "procedure", "the `KIND` of a row: procedure, client, domain")
	f.StringVar(&page.Order, "order", "time", "the `COLUMN` that comes first: "+strings.Join(format.Orders, ", "))
	f.DurationVar(&page.Interval, "interval", time.Second, "the `DURATION` between two tables")
	f.IntVar(&page.Count, "count", 0, "end after `N` intervals; 0 means never")
	f.BoolVar(&page.Histogram, "histogram", false, "show bars: how many calls took how long")
	f.BoolVar(&o.json, "json", false, "print JSON, one object an interval")
	return c
}

func newTraceProbes(a *app) *cobra.Command {
	o := newTraceOptions(0)
	var all bool
	var asJSON *bool
	c := o.command(a, "probes", "List libvirt's files and the probes in them",
		func(_ context.Context, cfg capture.Config, _ []string) error { return a.probes(cfg, *asJSON, all) },
		o.processes)
	asJSON = jsonFlag(c)
	f := c.Flags()
	f.StringSliceVar(&o.cfg.Paths, "path", nil, "only these `FILE`s")
	f.BoolVar(&all, "all", false, "list each place of each probe, with its arguments, and files without probes")
	return c
}

func (a *app) probes(cfg capture.Config, asJSON, all bool) error {
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
