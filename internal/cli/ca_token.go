package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
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
		Long: `Make a token with which a program gets certificates for the domains, and all below
them, from the signing call of the server. It is printed once and kept as a hash.`,
		Example: "  postern ca token add deploy --domain example.com --validity 30d",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withCA(cmd.Context(), func(_ *state.State, authority *ca.Authority) error {
				token, err := authority.AddToken(cmd.Context(), args[0], domains, time.Duration(validity))
				if err == nil {
					fmt.Fprintln(a.out, token)
				}
				return err
			})
		},
	}
	cmd.Flags().StringSliceVar(&domains, "domain", nil,
		"`DOMAIN` it may get certificates for, * for any; can be repeated")
	cmd.Flags().Var(&validity, "validity", "how long it works, a `DURATION` such as 30d (default: until removed)")
	return cmd
}

func newCATokenList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{
		Use:     "list",
		Short:   "List the tokens",
		Long:    "List the tokens and what they are good for. The tokens themselves are not kept.",
		Example: "  postern ca token list --json",
	}, "NAME DOMAINS EXPIRES", func(ctx context.Context, st *state.State, _ []string) ([]ca.APIToken, error) {
		return st.Store.CA().APITokens(ctx)
	}, func(t ca.APIToken) []string {
		expires := "never"
		if !t.Expires.IsZero() {
			expires = terminal.Time(t.Expires)
		}
		return []string{t.Name, strings.Join(t.Domains, " "), expires}
	})
}

func newCATokenRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME",
		Short:   "Make a token worthless",
		Long:    "Make a token worthless, from the next call on.",
		Example: "  postern ca token remove deploy",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withCA(cmd.Context(), func(_ *state.State, authority *ca.Authority) error {
				return authority.RemoveToken(cmd.Context(), args[0])
			})
		},
	}
}
