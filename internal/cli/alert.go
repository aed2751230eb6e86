//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/spf13/cobra"
)

func newAlert(a *app) *cobra.Command {
	return group("alert", "What is reported from the timeline by mail, webhook or command",
		command("test NAME", "Send a message of an alert to its receivers", a.withState,
			func(ctx context.Context, st *state.State, args []string) error {
				return server.TestAlert(ctx, st, args[0], func(e postern.Event) {
					fmt.Fprintf(a.out, "%s: %s\n", e.Details["to"], cmp.Or(e.Reason, string(e.Outcome)))
				})
			}))
}
