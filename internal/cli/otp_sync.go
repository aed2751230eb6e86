package cli

import (
	"strings"

	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/usage"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPSync(a *app) *cobra.Command {
	return group("sync", "Sync with yubikey-val servers",
		newOTPSyncSet(a),
		newOTPSyncShow(a),
		&cobra.Command{
			Use: "off", Short: "Stop syncing with other servers",
			Long:    "Stop syncing with other servers, from the next start on.",
			Example: "  postern otp sync off",
			Args:    usage.Args(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.withOTP(cmd.Context(), func(keys *store.OTP) error {
					return keys.SetSyncConfig(cmd.Context(), otp.Sync{})
				})
			},
		})
}

// syncJSON is how servers are synced with, as it is printed.
type syncJSON struct {
	Peers   []string `json:"peers"`             // URLs that accepted codes are sent to
	Allowed []string `json:"allowed"`           // networks that may send theirs
	Timeout float64  `json:"timeout,omitempty"` // seconds
	Level   int      `json:"level,omitempty"`   // percent
}

func newOTPSyncShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show which servers are synced with",
		Long:    "Show which servers are sent each accepted code, and which may send theirs.",
		Example: "  postern otp sync show --json",
		Args:    usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(keys *store.OTP) error {
				s, err := keys.SyncConfig(cmd.Context())
				if err != nil {
					return err
				}
				allowed := make([]string, len(s.Allow))
				for i, p := range s.Allow {
					allowed[i] = p.String()
				}
				shown := syncJSON{append([]string{}, s.Peers...), allowed, s.Timeout.Seconds(), s.Default}
				return a.printer().Fields(shown, asJSON,
					terminal.Field{"peers", terminal.Dash(strings.Join(s.Peers, " "))},
					terminal.Field{"allowed", terminal.Dash(strings.Join(allowed, " "))})
			})
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newOTPSyncSet(a *app) *cobra.Command {
	var s otp.Sync
	var allow []string
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Sync with other servers, from the next start on",
		Long: `Sync with yubikey-val servers by their own sync protocol: each server sends the
others every code that it accepts. They identify each other by address only, so
the network between them must be trusted. Several servers of Postern do not need
this: they share one PostgreSQL database.`,
		Example: "  postern otp sync set --peer https://val2.example.com/wsapi/2.0/sync --allow 192.0.2.12",
		Args:    usage.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if s.Allow, err = otp.ParseNetworks(allow); err != nil {
				return err
			}
			return a.withOTP(cmd.Context(), func(keys *store.OTP) error {
				return keys.SetSyncConfig(cmd.Context(), s)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&s.Peers, "peer", nil, "`URL` of a server to send accepted codes to; can be repeated")
	f.StringArrayVar(&allow, "allow", nil, "`ADDRESS` or network of servers that may send theirs; can be repeated")
	f.DurationVar(&s.Timeout, "timeout", 0, "the `TIME` that a client waits for peers unless it asks otherwise (default 1s)")
	f.IntVar(&s.Default, "level", 0, "the `PERCENT` of the peers that have to agree unless the client asks otherwise (default 60)")
	return cmd
}
