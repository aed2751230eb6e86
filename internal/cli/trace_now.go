package cli

import (
	"time"

	"github.com/postern-project/postern/internal/trace/inflight"
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
