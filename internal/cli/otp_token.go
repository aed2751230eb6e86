package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPToken(a *app) *cobra.Command {
	return group("token", "A YubiKey in software, for tests and trials",
		newOTPTokenNew(a), newOTPTokenTouch(a), newOTPTokenPlug(a), newOTPTokenCSV(a))
}

func newOTPTokenNew(a *app) *cobra.Command {
	var publicID string
	cmd := plain("new FILE", "Make a software token", func(_ context.Context, args []string) error {
		t, err := client.NewToken(args[0], publicID)
		if err != nil {
			return err
		}
		return a.done(nil, "%s\n", t.PublicID)
	})
	cmd.Flags().StringVar(&publicID, "public-id", "", "its public ID in `MODHEX` (default: a random one)")
	return cmd
}

func newOTPTokenTouch(a *app) *cobra.Command {
	var n int
	cmd := plain("touch FILE", "Print the token's next code", func(_ context.Context, args []string) error {
		codes, err := client.Touch(args[0], n)
		for _, c := range codes {
			fmt.Fprintln(a.out, c)
		}
		return err
	})
	cmd.Flags().IntVarP(&n, "count", "n", 1, "print this `NUMBER` of codes")
	return cmd
}

func newOTPTokenPlug(a *app) *cobra.Command {
	return plain("plug FILE", "Unplug the token and plug it in again",
		func(_ context.Context, args []string) error { return client.PlugIn(args[0]) })
}

func newOTPTokenCSV(a *app) *cobra.Command {
	return plain("csv FILE", "Print the token's secret for otp import",
		func(_ context.Context, args []string) error {
			t, err := client.ReadToken(args[0])
			if err != nil {
				return err
			}
			return otp.WriteKSM(a.out, []*otp.Key{{PublicID: t.PublicID, Secret: &t.Secret}})
		})
}
