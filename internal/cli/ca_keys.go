//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
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
	cmd := command("add NAME --domain DOMAIN...", "Make a token, and print it once", a.withCA,
		func(ctx context.Context, authority *ca.Authority, args []string) error {
			token, err := authority.AddToken(ctx, args[0], domains, time.Duration(validity))
			return a.done(err, "%s\n", token)
		})
	cmd.Flags().StringSliceVar(&domains, "domain", nil,
		"`DOMAIN` it may get certificates for, * for any; can be repeated")
	cmd.Flags().Var(&validity, "validity", "how long it works, a `DURATION` such as 30d (default: until removed)")
	return cmd
}

func newCATokenList(a *app) *cobra.Command {
	return listCommand(a, "list", "List the tokens", a.withCA, "NAME DOMAINS EXPIRES",
		func(ctx context.Context, authority *ca.Authority, _ []string) ([]ca.APIToken, error) {
			return authority.Tokens(ctx)
		}, func(t ca.APIToken) []string {
			return []string{t.Name, strings.Join(t.Domains, " "), cmp.Or(terminal.Time(t.Expires), "never")}
		})
}

func newCATokenRemove(a *app) *cobra.Command {
	return command("remove NAME", "Remove a token", a.withCA,
		func(ctx context.Context, authority *ca.Authority, args []string) error {
			return authority.RemoveToken(ctx, args[0])
		})
}

func newACMEKeys(a *app) *cobra.Command {
	return group("acme", "Keys that bind ACME accounts to people", newACMEAdd(a), newACMEList(a), newACMEDisable(a))
}

func newACMEAdd(a *app) *cobra.Command {
	var label string
	cmd := command("add PERSON", "Make a key for a person's ACME client", a.withState,
		func(ctx context.Context, st *state.State, args []string) error {
			k := acme.NewExternalKey(args[0], label, time.Now())
			err := st.Store.ACME().AddExternalKey(ctx, postern.Actor{}, k,
				acme.KeyEvent(k.Person, k.ID, k.Label, postern.ACMEKeyMade))
			return a.done(err, "key ID    %s\nHMAC key  %s\n", k.ID, base64.RawURLEncoding.EncodeToString(k.Secret))
		})
	cmd.Flags().StringVar(&label, "label", "", "a `NAME` for what the key is for")
	return cmd
}

func newACMEList(a *app) *cobra.Command {
	return listCommand(a, "list PERSON", "List a person's keys", a.withState, "ID STATUS CREATED ACCOUNT LABEL",
		func(ctx context.Context, st *state.State, args []string) ([]acme.ExternalKey, error) {
			if _, err := st.Store.People().Person(ctx, args[0]); err != nil {
				return nil, err
			}
			return st.Store.ACME().ExternalKeys(ctx, args[0])
		}, func(k acme.ExternalKey) []string {
			return []string{k.ID, k.Status(), terminal.Day(k.Created), k.Account, k.Label}
		})
}

func newACMEDisable(a *app) *cobra.Command {
	return command("disable PERSON KEY", "Disable a key, and the account that it binds", a.withState,
		func(ctx context.Context, st *state.State, args []string) error {
			return st.Store.ACME().DisableExternalKey(ctx, postern.Actor{}, args[0], args[1],
				acme.KeyEvent(args[0], args[1], "", postern.ACMEKeyDisabled))
		})
}
