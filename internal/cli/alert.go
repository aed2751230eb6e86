package cli

import (
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/spf13/cobra"
)

func newAlert(a *app) *cobra.Command {
	return group("alert", "What is reported from the timeline by mail, webhook or command", &cobra.Command{
		Use:   "test NAME",
		Short: "Send a message of an alert to its receivers",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withState(cmd.Context(), func(st *state.State) error {
				return server.TestAlert(cmd.Context(), st, args[0], func(e postern.Event) {
					fmt.Fprintf(a.out, "%s: %s %s\n", e.Details["to"], e.Outcome, e.Reason)
				})
			})
		},
	})
}
