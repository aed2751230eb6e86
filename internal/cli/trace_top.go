package cli

import (
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/inflight"
	"github.com/postern-project/postern/internal/trace/top"
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
	o.processes(c)
	f := c.Flags()
	f.StringSliceVar(&n.Domains, "domain", nil, "only calls about these virtual machines, by name: `GLOB`s")
	f.BoolVarP(&watch, "watch", "w", false, "look again each interval, and trace meanwhile")
	f.DurationVar(&n.Interval, "interval", time.Second, "the `DURATION` between two looks")
	f.IntVar(&n.Count, "count", 0, "end after `N` looks; 0 means never")
	return c
}

// topOptions are the flags of trace top.
type topOptions struct {
	traceOptions
	page top.Config
}

func newTraceTop(a *app) *cobra.Command {
	o := &topOptions{traceOptions: *newTraceOptions(capture.RPC)}
	c := plain("top", "Show which calls take libvirt's time",
		func(ctx context.Context, _ []string) error { return o.run(ctx, a) })
	o.choose(c)
	o.rpc(c)
	o.capture(c)
	f := c.Flags()
	f.StringVar(&o.page.By, "by", "procedure", "the `KIND` of a row: procedure, client, domain")
	f.StringVar(&o.page.Order, "order", "time", "the `COLUMN` that comes first: "+strings.Join(format.Orders, ", "))
	f.DurationVar(&o.page.Interval, "interval", time.Second, "the `DURATION` between two tables")
	f.IntVar(&o.page.Count, "count", 0, "end after `N` intervals; 0 means never")
	f.BoolVar(&o.page.Histogram, "histogram", false, "show bars: how many calls took how long")
	f.BoolVar(&o.json, "json", false, "print JSON, one object an interval")
	return c
}

func (o *topOptions) run(ctx context.Context, a *app) error {
	cfg, err := o.config(a)
	if err != nil {
		return err
	}
	o.page.JSON = o.json
	sum, err := o.page.Trace(ctx, cfg, a.in, a.out, a.watching)
	return a.traced(sum, err)
}
