//go:build !noserver

package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern/internal/state"
	"github.com/spf13/cobra"
)

func newLogKey(a *app) *cobra.Command {
	show := &cobra.Command{Use: "show", Short: "Print the timeline's public keys"}
	show.RunE = on(a.withState, func(_ context.Context, st *state.State, _ []string) error {
		_, err := fmt.Fprintln(a.out, st.Store.Timeline().LogVerifier())
		return err
	})
	next := &cobra.Command{Use: "new", Short: "Make the signing key that follows, beside the present one"}
	next.RunE = on(a.withState, func(ctx context.Context, st *state.State, _ []string) error {
		public, err := st.NewLogKey(ctx)
		return a.done(err, "%s\n", public)
	})
	retire := &cobra.Command{Use: "retire", Short: "End the use of the older of two signing keys"}
	retire.RunE = on(a.withState, func(ctx context.Context, st *state.State, _ []string) error {
		return a.done(st.RetireLogKey(ctx), "one key signs the timeline from now on\n")
	})
	return group("key", "The timeline's signing key: follow it by another", show, next, retire)
}
