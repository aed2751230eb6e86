package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/top"
	"github.com/spf13/cobra"
)

// topOptions are the flags of trace top.
type topOptions struct {
	traceOptions
	page top.Config
}

func newTraceTop(a *app) *cobra.Command {
	o := &topOptions{traceOptions: traceOptions{what: capture.RPC}}
	c := &cobra.Command{
		Use:   "top",
		Short: "Show which calls take libvirt's time",
		Long: `Count RPC calls by procedure, client or virtual machine: how many, how many
failed, how long they took (half of them, 99 of 100, the longest), their share of
all the time, and the share of theirs that was spent waiting for a worker. By
virtual machine, only calls that are about one count.

On a terminal the table stays in place: o orders it by the next column, space
pauses it, q ends. Elsewhere a table is written each interval, or with --json one
line of JSON. Times are exact to 9 %.`,
		Example: `  postern trace top
  postern trace top --by client --order calls
  postern trace top --json --interval 10s --count 6`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), a) },
	}
	o.choose(c)
	o.rpc(c)
	o.capture(c)
	f := c.Flags()
	f.StringVar(&o.page.By, "by", "procedure", "the `KIND` of a row: procedure, client, domain")
	f.StringVar(&o.page.Order, "order", "time", "the `COLUMN` that comes first: "+strings.Join(format.Orders, ", "))
	f.DurationVar(&o.page.Interval, "interval", time.Second, "the `DURATION` between two tables")
	f.IntVar(&o.page.Count, "count", 0, "end after `N` intervals; 0 means never")
	f.BoolVar(&o.json, "json", false, "print JSON, one object an interval")
	return c
}

func (o *topOptions) run(ctx context.Context, a *app) error {
	tally, cfg, err := o.check()
	if err != nil {
		return err
	}
	o.warn(a.err)
	s, err := capture.Start(cfg)
	if err != nil {
		return err
	}
	ready(a.err, s)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var traced error
	ended := make(chan struct{})
	go func() {
		traced = s.Run(ctx, tally)
		close(ended)
		stop()
	}()
	err = top.New(o.page, tally).Show(ctx, a.in, a.out, ended)
	stop()
	<-ended
	summary(a.err, s.Summary())
	return errors.Join(err, traced, s.Close())
}

// check turns the flags into what is counted and watched.
func (o *topOptions) check() (*format.Tally, capture.Config, error) {
	o.page.JSON = o.json
	if err := o.page.Validate(); err != nil {
		return nil, capture.Config{}, err
	}
	tally, err := format.NewTally(format.By(o.page.By))
	if err != nil {
		return nil, capture.Config{}, err
	}
	if o.page.By == string(format.ByDomain) && len(o.domains) == 0 {
		o.domains = []string{"*"} // look for them in the messages
	}
	cfg, err := o.config()
	cfg.Queue = true
	return tally, cfg, err
}
