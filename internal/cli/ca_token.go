//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newCAToken(a *app) *cobra.Command {
	return group("token", "API tokens with which programs sign over HTTP", newCATokenAdd(a), newCATokenList(a),
		newCATokenRemove(a))
}

func newCATokenAdd(a *app) *cobra.Command {
	var domains []string
	var validity terminal.Duration
	cmd := &cobra.Command{
		Use:   "add NAME --domain DOMAIN...",
		Short: "Make a token, and print it once",
		RunE: on(a.withCA, func(ctx context.Context, authority *ca.Authority, args []string) error {
			token, err := authority.AddToken(ctx, args[0], domains, time.Duration(validity))
			return a.done(err, "%s\n", token)
		}),
	}
	cmd.Flags().StringSliceVar(&domains, "domain", nil,
		"`DOMAIN` it may get certificates for, * for any; can be repeated")
	cmd.Flags().Var(&validity, "validity", "how long it works, a `DURATION` such as 30d (default: until removed)")
	return cmd
}

func newCATokenList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{Use: "list", Short: "List the tokens"}, a.withCA, "NAME DOMAINS EXPIRES",
		func(ctx context.Context, authority *ca.Authority, _ []string) ([]ca.APIToken, error) {
			return authority.Tokens(ctx)
		}, func(t ca.APIToken) []string {
			return []string{t.Name, strings.Join(t.Domains, " "), cmp.Or(terminal.Time(t.Expires), "never")}
		})
}

func newCATokenRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a token",
		RunE: on(a.withCA, func(ctx context.Context, authority *ca.Authority, args []string) error {
			return authority.RemoveToken(ctx, args[0])
		}),
	}
}
