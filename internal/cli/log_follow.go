package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

// followInterval is how often log follow looks for new entries.
const followInterval = 300 * time.Millisecond

func newLogFollow(a *app) *cobra.Command {
	var o logOptions
	cmd := &cobra.Command{
		Use:   "follow",
		Short: "Print entries of the timeline as they are written",
		Long: "Print the last entries of the timeline that match every flag, and then each new one, until " +
			"interrupted.",
		Example: `  postern log follow --outcome refused
  postern log follow -n 0 --json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.logFollow(cmd.Context(), &o) },
	}
	o.flags(cmd, 10, "begin with at most so `MANY` entries that are there already")
	return cmd
}

func (a *app) logFollow(ctx context.Context, o *logOptions) error {
	if err := o.filter.Validate(); err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	log := st.Store.Timeline()
	return timeline.Follower{
		Source: log, Filter: o.filter, Interval: followInterval,
		Entries:     func(events []postern.Event) error { return a.printEvents(ctx, log, events, o) },
		Unavailable: func(err error) { fmt.Fprintf(a.err, "postern: %v; waiting for it\n", err) },
	}.Follow(ctx)
}
