//go:build !noserver

package cli

import (
	"context"
	"strings"

	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPSync(a *app) *cobra.Command {
	return group("sync", "Sync with yubikey-val servers",
		newOTPSyncSet(a),
		newOTPSyncShow(a),
		&cobra.Command{
			Use: "off", Short: "Stop syncing with other servers",
			RunE: on(a.withOTP, func(ctx context.Context, keys *store.OTP, _ []string) error {
				return keys.SetSyncConfig(ctx, otp.Sync{})
			}),
		})
}

func newOTPSyncShow(a *app) *cobra.Command {
	return showCommand(a, &cobra.Command{
		Use: "show", Short: "Show which servers are synced with",
	}, a.withOTP, func(ctx context.Context, keys *store.OTP, _ []string) (otp.SyncInfo, error) {
		s, err := keys.SyncConfig(ctx)
		return s.Info(), err
	}, func(s otp.SyncInfo) []terminal.Field {
		return []terminal.Field{
			{"peers", terminal.Dash(strings.Join(s.Peers, " "))},
			{"allowed", terminal.Dash(strings.Join(s.Allowed, " "))},
		}
	})
}

func newOTPSyncSet(a *app) *cobra.Command {
	var s otp.Sync
	var allow []string
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Sync with other servers, from the next start on",
		RunE: on(a.withOTP, func(ctx context.Context, keys *store.OTP, _ []string) (err error) {
			if s.Allow, err = otp.ParseNetworks(allow); err != nil {
				return err
			}
			return keys.SetSyncConfig(ctx, s)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&s.Peers, "peer", nil, "`URL` of a server to send accepted codes to; can be repeated")
	f.StringArrayVar(&allow, "allow", nil, "`ADDRESS` or network of servers that may send theirs; can be repeated")
	f.DurationVar(&s.Timeout, "timeout",
		0, "the `TIME` that a client waits for peers unless it asks otherwise (default 1s)")
	f.IntVar(&s.Default, "level", 0,
		"the `PERCENT` of the peers that have to agree unless the client asks otherwise (default 60)")
	return cmd
}
