//go:build !noserver

package cli

import (
	"context"
	"time"

	"github.com/postern-project/postern/internal/archive"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newLogArchive(a *app) *cobra.Command {
	var before, to string
	cmd := &cobra.Command{Use: "archive", Short: "Move old entries of the timeline into files"}
	cmd.Flags().StringVar(&before, "before", "", "move the entries before this `TIME`, or before that index")
	cmd.Flags().StringVar(&to, "to", "", "the `DIRECTORY` of the archive, the same each time")
	required(cmd, "before", "to")
	cmd.RunE = on(a.withLog, func(ctx context.Context, log store.Timeline, _ []string) error {
		n, err := archive.Size(ctx, log, before, func(text string) (at time.Time, err error) {
			err = (*terminal.Moment)(&at).Set(text)
			return at, err
		})
		if err != nil {
			return err
		}
		end := terminal.Working(a.err, "moving entries into "+to)
		size, err := archive.Run(ctx, log, to, n)
		end()
		why := ""
		if size < n {
			why = ", in files of 256; later ones may be waited for by alerts, notifications and witnesses"
		}
		return a.done(err, "the archive has the first %s%s\n", terminal.Counted(size, "entry"), why)
	})
	return cmd
}

// withArchive has the timeline read with what was moved into files, where that is here.
func (a *app) withArchive(ctx context.Context, do func(*state.State) error) error {
	return a.withState(ctx, func(st *state.State) error {
		if err := archive.Use(ctx, st.Store, a.archive); err != nil {
			return err
		}
		return do(st)
	})
}
