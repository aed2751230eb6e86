package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPSync(a *app) *cobra.Command {
	return group("sync", "Keep step with yubikey-val servers",
		newOTPSyncSet(a),
		newOTPSyncShow(a),
		&cobra.Command{
			Use: "off", Short: "Tell and hear no other server",
			Long:    "Tell and hear no other server any more, from the next start on.",
			Example: "  postern otp sync off",
			Args:    usageArgs(cobra.NoArgs),
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
					return keys.SetSyncConfig(cmd.Context(), otp.Sync{})
				})
			},
		})
}

func newOTPSyncShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show", Short: "Show which servers are told and heard",
		Long:    "Show which servers are told of accepted codes, and which are heard.",
		Example: "  postern otp sync show --json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
				s, err := keys.SyncConfig(cmd.Context())
				if err != nil {
					return err
				}
				hears := make([]string, len(s.Allow))
				for i, p := range s.Allow {
					hears[i] = p.String()
				}
				if asJSON {
					return printJSON(a.out, struct {
						Tells   []string `json:"tells"`
						Hears   []string `json:"hears"`
						Timeout float64  `json:"timeout,omitempty"` // seconds
						Level   int      `json:"level,omitempty"`   // percent
					}{append([]string{}, s.Peers...), hears, s.Timeout.Seconds(), s.Default})
				}
				fmt.Fprintf(a.out, "tells %s\nhears %s\n", dash(strings.Join(s.Peers, " ")), dash(strings.Join(hears, " ")))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	return cmd
}

func newOTPSyncSet(a *app) *cobra.Command {
	var s otp.Sync
	var allow []string
	cmd := &cobra.Command{
		Use:   "set",
		Short: "Tell and hear other servers, from the next start on",
		Long: `Keep step with a fleet of yubikey-val servers by their own sync protocol: each tells
the others of every code that it accepts. They know each other by address only, so
the network between them must be one to trust. Several servers of Postern's need
none of this: they share one PostgreSQL database.`,
		Example: "  postern otp sync set --peer https://val2.example.com/wsapi/2.0/sync --allow 192.0.2.12",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, text := range allow {
				p, err := netip.ParsePrefix(text)
				if ip, ierr := netip.ParseAddr(text); ierr == nil {
					p, err = netip.PrefixFrom(ip, ip.BitLen()), nil
				}
				if err != nil {
					return postern.Errorf(postern.Invalid, "%q is neither an IP address nor a network", text)
				}
				s.Allow = append(s.Allow, p)
			}
			return a.withOTP(cmd.Context(), func(_ *state.State, keys *store.OTP) error {
				return keys.SetSyncConfig(cmd.Context(), s)
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&s.Peers, "peer", nil, "`URL` of a server to tell; can be given again")
	f.StringArrayVar(&allow, "allow", nil, "`ADDRESS` or network of servers to hear; can be given again")
	f.DurationVar(&s.Timeout, "timeout", 0, "how `LONG` a client waits for peers if it does not say (default 1s)")
	f.IntVar(&s.Default, "level", 0, "`PERCENT` of the peers that have to agree if the client does not say (default 60)")
	return cmd
}
