//go:build !noserver

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

func newUser(a *app) *cobra.Command {
	return group("user", "People, and what they hold",
		newUserAdd(a), newUserSet(a), newUserInvite(a), newUserList(a), newUserShow(a),
		newUserStatus(a, "suspend", "suspended", postern.PersonSuspended,
			"Refuse a person everywhere until they are resumed"),
		newUserStatus(a, "resume", "resumed", postern.PersonActive, "End a person's suspension"),
		newUserStatus(a, "remove", "removed", postern.PersonRemoved, "Remove a person for good"),
		newUserRecover(a), newUserAccount(a), newUserAddKey(a),
	)
}

func newUserAdd(a *app) *cobra.Command {
	var p postern.Person
	cmd := command("add NAME", "Add a person", a.withPeople,
		func(ctx context.Context, d people.Directory, args []string) error {
			p.Name = args[0]
			if err := d.Add(ctx, p); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "added %s\n", p.Name)
			made, err := d.Invite(ctx, p.Name)
			if errors.Is(err, people.ErrNoPortal) {
				return a.done(nil, "%v; %s\n", err, hintOf(err))
			}
			return a.printLink(p.Name, made, err)
		})
	cmd.Flags().StringVar(&p.Email, "email", "", "the person's `ADDRESS`; no other person may have it")
	cmd.Flags().StringVar(&p.FullName, "full-name", "", "the person's `NAME` as people write it")
	cmd.Flags().StringSliceVar(&p.Groups, "group", nil, "a `GROUP` that the person is in; can be repeated")
	return cmd
}

func newUserList(a *app) *cobra.Command {
	return listCommand(a, "list", "List the people", a.withState, "NAME STATUS EMAIL GROUPS FULL-NAME",
		func(ctx context.Context, st *state.State, _ []string) ([]postern.Person, error) {
			return st.Store.People().All(ctx)
		}, func(p postern.Person) []string {
			return []string{p.Name, string(p.Status), p.Email, strings.Join(p.Groups, ","), p.FullName}
		})
}

func newUserShow(a *app) *cobra.Command {
	return showCommand(a, "show NAME", "Show a person and their credentials", a.withState,
		func(ctx context.Context, st *state.State, args []string) (people.Holder, error) {
			return people.Directory{DB: st.Store}.Holder(ctx, args[0])
		}, func(h people.Holder) []terminal.Field {
			fields := []terminal.Field{
				{"name", h.Name},
				{"status", string(h.Status)},
				{"e-mail", h.Email},
				{"full name", h.FullName},
				{"groups", strings.Join(h.Groups, ", ")},
				{"added", terminal.Time(h.Created)},
			}
			for _, c := range h.Credentials {
				fields = append(fields, terminal.Field{"credential", describe(c)})
			}
			return fields
		})
}

// describe says a credential on one line.
func describe(c postern.Credential) string {
	s := fmt.Sprintf("%s %s, %s", c.Kind, c.ID, c.Status)
	if c.Label != "" {
		s += ", " + c.Label
	}
	if !c.Expires.IsZero() {
		s += ", until " + terminal.Time(c.Expires)
	}
	if !c.LastUsed.IsZero() {
		s += ", last used " + terminal.Time(c.LastUsed)
	}
	return s
}

// newUserStatus makes one of the commands that set a person's status.
func newUserStatus(a *app, use, done string, status postern.PersonStatus, short string) *cobra.Command {
	return command(use+" NAME", short, a.withState,
		func(ctx context.Context, st *state.State, args []string) error {
			changed, err := people.Directory{DB: st.Store}.SetStatus(ctx, args[0], status)
			if !changed {
				return a.done(err, "%s is already %s\n", args[0], status)
			}
			return a.done(err, "%s %s\n", done, args[0])
		})
}

func newUserRecover(a *app) *cobra.Command {
	var keepOTP bool
	cmd := command("recover NAME", "Recover the access of a person who lost their certificates", a.withPeople,
		func(ctx context.Context, d people.Directory, args []string) error {
			made, off, err := d.Recover(ctx, args[0], keepOTP)
			for _, what := range off.Words() {
				fmt.Fprintf(a.out, "off: %s\n", what)
			}
			return a.printLink(args[0], made, err)
		})
	cmd.Flags().BoolVar(&keepOTP, "keep-otp", false,
		"leave YubiKeys and authenticator apps enabled: they were not lost, and no attacker added one")
	return cmd
}

func newUserInvite(a *app) *cobra.Command {
	return command("invite NAME", "Send a person a link to a certificate", a.withPeople,
		func(ctx context.Context, d people.Directory, args []string) error {
			made, err := d.Invite(ctx, args[0])
			return a.printLink(args[0], made, err)
		})
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
	cmd := plain("set NAME", "Change a person's address, full name or groups",
		func(ctx context.Context, args []string) error {
			if c.Empty() {
				return postern.Errorf(postern.Invalid, "nothing is to be changed").
					WithHint("give --email, --full-name, --add-group or --drop-group")
			}
			return a.withPeople(ctx, func(d people.Directory) error {
				what, err := d.Change(ctx, args[0], c)
				if what == "" {
					return a.done(err, "%s is already so: nothing has changed\n", args[0])
				}
				return a.done(err, "%s: %s\n", args[0], what)
			})
		})
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

func newUserAccount(a *app) *cobra.Command {
	return group("account", "Say whose the accounts of hosts and directories are",
		newUserAccountAdd(a), newUserAccountList(a), newUserAccountRemove(a))
}

func newUserAccountAdd(a *app) *cobra.Command {
	var account postern.Account
	cmd := plain("add ACCOUNT", "Say whose an account is", func(ctx context.Context, args []string) error {
		account.Name = args[0]
		if err := account.Validate(); err != nil {
			return err
		}
		return a.withState(ctx, func(st *state.State) error {
			return st.Store.People().AddAccount(ctx, account)
		})
	})
	f := cmd.Flags()
	f.StringVar(&account.Person, "person", "", "the `PERSON` whose it is")
	f.StringVar(&account.Host, "host", "",
		"the `HOST` where it is theirs, by its name without the domain (default: everywhere)")
	f.BoolVar(&account.AnyCase, "any-case", false, "the name may be written in any case, as in most directories")
	return cmd
}

func newUserAccountList(a *app) *cobra.Command {
	return listCommand(a, "list", "List whose the accounts are", a.withState, "ACCOUNT PERSON HOST CASE",
		func(ctx context.Context, st *state.State, _ []string) ([]postern.Account, error) {
			return st.Store.People().Accounts(ctx)
		}, func(c postern.Account) []string {
			return []string{c.Name, c.Person, c.Host, map[bool]string{true: "any", false: "exact"}[c.AnyCase]}
		})
}

func newUserAccountRemove(a *app) *cobra.Command {
	var host string
	cmd := command("remove ACCOUNT", "Remove an account from the list", a.withState,
		func(ctx context.Context, st *state.State, args []string) error {
			return a.done(st.Store.People().RemoveAccount(ctx, args[0], host), "removed %s\n", args[0])
		})
	cmd.Flags().StringVar(&host, "host", "", "the `HOST` for which it was said")
	return cmd
}

func newUserAddKey(a *app) *cobra.Command {
	k := sign.EnrolledKey{}
	cmd := command("add-key NAME FILE", "Keep a person's SSH key, without an attestation", a.withState,
		func(ctx context.Context, st *state.State, args []string) (err error) {
			k.Person = args[0]
			if k.Public, err = client.ReadPublicKey(args[1]); err != nil {
				return err
			}
			err = server.EnrolSSHKey(ctx, st, postern.Actor{}, k)
			return a.done(err, "%s has the key %s\n", k.Person, ssh.FingerprintSHA256(k.Public))
		})
	cmd.Flags().StringVar(&k.Label, "label", "", "`WORDS` for it, which the person sees")
	return cmd
}
