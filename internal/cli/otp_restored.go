package cli

import (
	"errors"
	"fmt"

	"github.com/postern-project/postern/internal/people"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

func newOTPRestored(a *app) *cobra.Command {
	var trust bool
	cmd := &cobra.Command{
		Use:   "restored",
		Short: "Go on with a database that was restored from a backup",
		Long: `Go on with a database that was restored from a backup. It does not know which
codes were used after the backup was made, and would take them again; so no code
is taken until this command was given, with the server stopped.

It disables every YubiKey and HOTP device whose secret is here and throws away all
recovery codes. Then, for each key, have its holder unplug it, plug it in again and
touch it: postern otp enable ID, and at once postern otp verify - with that code,
which puts the counter where it belongs. Give out new recovery codes.

With --trust nothing is disabled: if you know that no code was used since the
backup, or that nobody can have seen one.`,
		Example: "  postern otp restored",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(st *state.State, keys *store.OTP) error {
				ctx := cmd.Context()
				switch _, err := st.CheckRestored(ctx); {
				case err == nil:
					return postern.Errorf(postern.Conflict, "the database is not older than what was seen of it")
				case !errors.Is(err, state.ErrRestored):
					return err
				}
				n := 0
				if !trust {
					var err error
					if n, err = keys.DisableAll(ctx); err != nil {
						return err
					}
				}
				if err := st.Store.Append(ctx, people.ByHand(postern.Event{Kind: postern.EventOTPRestored, Count: int64(n)})); err != nil {
					return err
				}
				if err := st.ForgetSeen(); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "disabled %d keys and devices\n", n)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&trust, "trust", false, "disable nothing")
	return cmd
}
