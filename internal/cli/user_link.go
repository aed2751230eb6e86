//go:build !noserver

package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newUserRecover(a *app) *cobra.Command {
	var keepOTP bool
	cmd := &cobra.Command{
		Use:   "recover NAME",
		Short: "Recover the access of a person who lost their certificates",
		RunE: on(a.withPeople, func(ctx context.Context, d people.Directory, args []string) error {
			made, off, err := d.Recover(ctx, args[0], keepOTP)
			for _, what := range off.Words() {
				fmt.Fprintf(a.out, "off: %s\n", what)
			}
			return a.printLink(args[0], made, err)
		}),
	}
	cmd.Flags().BoolVar(&keepOTP, "keep-otp", false,
		"leave YubiKeys and authenticator apps enabled: they were not lost, and no attacker added one")
	return cmd
}

func newUserInvite(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "invite NAME",
		Short: "Send a person a link to a certificate",
		RunE: on(a.withPeople, func(ctx context.Context, d people.Directory, args []string) error {
			made, err := d.Invite(ctx, args[0])
			return a.printLink(args[0], made, err)
		}),
	}
}

// printLink says where a link went, unless there is none.
func (a *app) printLink(name string, made portal.Made, err error) error {
	if made.Sent {
		return a.done(err, "a link is on its way to %s, valid until %s\n", made.Email, terminal.Time(made.Expires))
	}
	return a.done(err, "give %s this link; it can be used once, until %s:\n  %s\n", name,
		terminal.Time(made.Expires), made.URL)
}

func newUserSet(a *app) *cobra.Command {
	var c people.Change
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a person's address, full name or groups",
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.Empty() {
				return postern.Errorf(postern.Invalid, "nothing is to be changed").
					WithHint("give --email, --full-name, --add-group or --drop-group")
			}
			return a.withPeople(cmd.Context(), func(d people.Directory) error {
				what, err := d.Change(cmd.Context(), args[0], c)
				if what == "" {
					return a.done(err, "%s is already so: nothing has changed\n", args[0])
				}
				return a.done(err, "%s: %s\n", args[0], what)
			})
		},
	}
	f := cmd.Flags()
	f.Func("email", "the person's new `ADDRESS`; empty takes it away", given(&c.Email))
	f.Func("full-name", "the person's `NAME` as people write it", given(&c.FullName))
	f.StringSliceVar(&c.Add, "add-group", nil, "a `GROUP` that the person joins; can be repeated")
	f.StringSliceVar(&c.Drop, "drop-group", nil, "a `GROUP` that the person leaves; can be repeated")
	return cmd
}

// given returns a flag's function that keeps whether the flag was given, too.
func given(to **string) func(string) error {
	return func(text string) error {
		*to = &text
		return nil
	}
}
