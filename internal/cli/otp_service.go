//go:build !noserver

package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

func newOTPClient(a *app) *cobra.Command {
	return group("client", "Programs that may ask the validation service",
		newOTPClientAdd(a), newOTPClientList(a),
		newOTPClientStatus(a, "disable", true, "Answer an API client no more"),
		newOTPClientStatus(a, "enable", false, "Answer a disabled API client again"),
	)
}

func newOTPClientAdd(a *app) *cobra.Command {
	var c otp.APIClient
	var out string
	var unsigned bool
	cmd := command("add", "Add an API client and print its number and key", a.withOTP,
		func(ctx context.Context, keys *store.OTP, _ []string) error {
			switch {
			case unsigned && c.MustSign:
				return postern.Errorf(postern.Invalid, "a client without a key cannot sign")
			case !unsigned:
				c.MakeKey()
			case out == "":
				out = "-" // no secret
			}
			if err := a.secretTarget(out); err != nil {
				return err
			}
			if err := keys.AddClient(ctx, &c); err != nil {
				return err
			}
			if err := a.secretOut(out, []byte(c.Text())); err != nil || toStdout(out) {
				return err
			}
			return a.done(nil, "added API client %d\n", c.ID)
		})
	f := cmd.Flags()
	f.StringVar(&c.Label, "label", "", "a `NAME` for it")
	f.Int64Var(&c.ID, "id", 0, "its `NUMBER` (default: the next free one)")
	f.BoolVar(&c.MustSign, "must-sign", false, "refuse its requests unless they are signed")
	f.BoolVar(&unsigned, "unsigned", false,
		"give it no key: nothing is signed, and an attacker on the network can forge answers")
	f.StringVarP(&out, "out", "o", "", "write number and key to `FILE`, mode 0600; - is standard output")
	return cmd
}

func newOTPClientList(a *app) *cobra.Command {
	return listCommand(a, "list", "List the API clients", a.withOTP, "ID STATUS KEY LABEL",
		func(ctx context.Context, keys *store.OTP, _ []string) (list []otp.ClientInfo, err error) {
			clients, err := keys.Clients(ctx)
			for _, c := range clients {
				list = append(list, c.Info())
			}
			return list, err
		}, func(c otp.ClientInfo) []string {
			status, key := "active", "required"
			if c.Disabled {
				status = "disabled"
			}
			switch {
			case !c.Signs:
				key = "unsigned"
			case !c.MustSign:
				key = "optional"
			}
			return []string{strconv.FormatInt(c.ID, 10), status, key, c.Label}
		})
}

func newOTPClientStatus(a *app, use string, disabled bool, short string) *cobra.Command {
	return command(use+" NUMBER", short, a.withOTP,
		func(ctx context.Context, keys *store.OTP, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return postern.Errorf(postern.Invalid, "%q is not the number of an API client", args[0])
			}
			return a.done(keys.SetClientDisabled(ctx, id, disabled), "%sd API client %d\n", use, id)
		})
}

func newOTPUpstream(a *app) *cobra.Command {
	cmd := group("upstream", "The upstream validation service, for keys whose secret is not here",
		newOTPUpstreamSet(a), newOTPUpstreamShow(a),
		command("remove", "Remove the upstream validation service", a.withOTP,
			func(ctx context.Context, keys *store.OTP, _ []string) error {
				return keys.RemoveUpstream(ctx)
			}))
	cmd.Aliases = []string{"outside"}
	return cmd
}

func newOTPUpstreamSet(a *app) *cobra.Command {
	var c otp.ClientConfig
	var keyFile string
	cmd := plain("set --id NUMBER --key-file FILE", "Set the upstream validation service",
		func(ctx context.Context, _ []string) error {
			if err := a.apiKey(&c, keyFile); err != nil {
				return err
			}
			if len(c.URLs) == 0 {
				c.URLs = []string{otp.YubiCloud}
			}
			return a.withOTP(ctx, func(keys *store.OTP) error { return keys.SetUpstream(ctx, c) })
		})
	f := cmd.Flags()
	f.StringVar(&keyFile, "key-file", "", keyFileUsage)
	f.Int64Var(&c.ID, "id", 0, "our API client `NUMBER` there (default: the one in the key's file)")
	f.StringArrayVar(&c.URLs, "url", nil, "`URL` of a server; can be repeated (default "+otp.YubiCloud+")")
	f.StringVar(&c.Level, "sl", "", "how many of its peers a server must have heard from: `PERCENT`, fast or secure")
	f.StringVar(&c.Proxy, "proxy", "", "`URL` of an HTTP proxy to go through")
	required(cmd, "key-file")
	return cmd
}

func newOTPUpstreamShow(a *app) *cobra.Command {
	return showCommand(a, "show", "Show which upstream validation service is asked", a.withOTP,
		func(ctx context.Context, keys *store.OTP, _ []string) (otp.ClientConfig, error) {
			return keys.Upstream(ctx)
		}, func(c otp.ClientConfig) []terminal.Field {
			return []terminal.Field{
				{"client", strconv.FormatInt(c.ID, 10)},
				{"urls", strings.Join(c.URLs, " ")},
				{"level", c.Level},
				{"proxy", c.Proxy},
			}
		})
}

func newOTPSync(a *app) *cobra.Command {
	return group("sync", "Sync with yubikey-val servers",
		newOTPSyncSet(a),
		newOTPSyncShow(a),
		command("off", "Stop syncing with other servers", a.withOTP,
			func(ctx context.Context, keys *store.OTP, _ []string) error {
				return keys.SetSyncConfig(ctx, otp.Sync{})
			}))
}

func newOTPSyncShow(a *app) *cobra.Command {
	return showCommand(a, "show", "Show which servers are synced with", a.withOTP,
		func(ctx context.Context, keys *store.OTP, _ []string) (otp.SyncInfo, error) {
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
	cmd := command("set", "Sync with other servers, from the next start on", a.withOTP,
		func(ctx context.Context, keys *store.OTP, _ []string) (err error) {
			if s.Allow, err = otp.ParseNetworks(allow); err != nil {
				return err
			}
			return keys.SetSyncConfig(ctx, s)
		})
	f := cmd.Flags()
	f.StringArrayVar(&s.Peers, "peer", nil, "`URL` of a server to send accepted codes to; can be repeated")
	f.StringArrayVar(&allow, "allow", nil, "`ADDRESS` or network of servers that may send theirs; can be repeated")
	f.DurationVar(&s.Timeout, "timeout",
		0, "the `TIME` that a client waits for peers unless it asks otherwise (default 1s)")
	f.IntVar(&s.Default, "level", 0,
		"the `PERCENT` of the peers that have to agree unless the client asks otherwise (default 60)")
	return cmd
}
