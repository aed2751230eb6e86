//go:build !noserver

package cli

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/state"
	"github.com/spf13/cobra"
)

func newUserAccount(a *app) *cobra.Command {
	return group("account", "Say whose the accounts of hosts and directories are",
		newUserAccountAdd(a), newUserAccountList(a), newUserAccountRemove(a))
}

func newUserAccountAdd(a *app) *cobra.Command {
	var account postern.Account
	cmd := &cobra.Command{
		Use:   "add ACCOUNT",
		Short: "Say whose an account is",
		RunE: func(cmd *cobra.Command, args []string) error {
			account.Name = args[0]
			if err := account.Validate(); err != nil {
				return err
			}
			return a.withState(cmd.Context(), func(st *state.State) error {
				return st.Store.People().AddAccount(cmd.Context(), account)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&account.Person, "person", "", "the `PERSON` whose it is")
	f.StringVar(&account.Host, "host", "",
		"the `HOST` where it is theirs, by its name without the domain (default: everywhere)")
	f.BoolVar(&account.AnyCase, "any-case", false, "the name may be written in any case, as in most directories")
	return cmd
}

func newUserAccountList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{
		Use:   "list",
		Short: "List whose the accounts are",
	}, a.withState, "ACCOUNT PERSON HOST CASE",
		func(ctx context.Context, st *state.State, _ []string) ([]postern.Account, error) {
			return st.Store.People().Accounts(ctx)
		}, func(c postern.Account) []string {
			return []string{c.Name, c.Person, c.Host, map[bool]string{true: "any", false: "exact"}[c.AnyCase]}
		})
}

func newUserAccountRemove(a *app) *cobra.Command {
	var host string
	cmd := &cobra.Command{
		Use:   "remove ACCOUNT",
		Short: "Remove an account from the list",
		RunE: on(a.withState, func(ctx context.Context, st *state.State, args []string) error {
			return a.done(st.Store.People().RemoveAccount(ctx, args[0], host), "removed %s\n", args[0])
		}),
	}
	cmd.Flags().StringVar(&host, "host", "", "the `HOST` for which it was said")
	return cmd
}
