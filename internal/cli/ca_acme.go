//go:build !noserver

package cli

import (
	"context"
	"encoding/base64"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newACMEKeys(a *app) *cobra.Command {
	return group("acme", "Keys that bind ACME accounts to people", newACMEAdd(a), newACMEList(a), newACMEDisable(a))
}

func newACMEAdd(a *app) *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use:   "add PERSON",
		Short: "Make a key for a person's ACME client",
		RunE: on(a.withState, func(ctx context.Context, st *state.State, args []string) error {
			k := acme.NewExternalKey(args[0], label, time.Now())
			err := st.Store.ACME().AddExternalKey(ctx, postern.Actor{}, k,
				acme.KeyEvent(k.Person, k.ID, k.Label, postern.ACMEKeyMade))
			return a.done(err, "key ID    %s\nHMAC key  %s\n", k.ID, base64.RawURLEncoding.EncodeToString(k.Secret))
		}),
	}
	cmd.Flags().StringVar(&label, "label", "", "a `NAME` for what the key is for")
	return cmd
}

func newACMEList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{
		Use:   "list PERSON",
		Short: "List a person's keys",
	}, a.withState, "ID STATUS CREATED ACCOUNT LABEL",
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
	return &cobra.Command{
		Use:   "disable PERSON KEY",
		Short: "Disable a key, and the account that it binds",
		RunE: on(a.withState, func(ctx context.Context, st *state.State, args []string) error {
			return st.Store.ACME().DisableExternalKey(ctx, postern.Actor{}, args[0], args[1],
				acme.KeyEvent(args[0], args[1], "", postern.ACMEKeyDisabled))
		}),
	}
}
