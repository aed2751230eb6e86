//go:build !noserver

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
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
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a person",
		RunE: on(a.withPeople, func(ctx context.Context, d people.Directory, args []string) error {
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
		}),
	}
	cmd.Flags().StringVar(&p.Email, "email", "", "the person's `ADDRESS`; no other person may have it")
	cmd.Flags().StringVar(&p.FullName, "full-name", "", "the person's `NAME` as people write it")
	cmd.Flags().StringSliceVar(&p.Groups, "group", nil, "a `GROUP` that the person is in; can be repeated")
	return cmd
}

func newUserList(a *app) *cobra.Command {
	return listCommand(a, &cobra.Command{
		Use:   "list",
		Short: "List the people",
	}, a.withState, "NAME STATUS EMAIL GROUPS FULL-NAME",
		func(ctx context.Context, st *state.State, _ []string) ([]postern.Person, error) {
			return st.Store.People().All(ctx)
		}, func(p postern.Person) []string {
			return []string{p.Name, string(p.Status), p.Email, strings.Join(p.Groups, ","), p.FullName}
		})
}

func newUserShow(a *app) *cobra.Command {
	return showCommand(a, &cobra.Command{
		Use:   "show NAME",
		Short: "Show a person and their credentials",
	}, a.withState, func(ctx context.Context, st *state.State, args []string) (people.Holder, error) {
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
	return &cobra.Command{
		Use:   use + " NAME",
		Short: short,
		RunE: on(a.withState, func(ctx context.Context, st *state.State, args []string) error {
			changed, err := people.Directory{DB: st.Store}.SetStatus(ctx, args[0], status)
			if !changed {
				return a.done(err, "%s is already %s\n", args[0], status)
			}
			return a.done(err, "%s %s\n", done, args[0])
		}),
	}
}
