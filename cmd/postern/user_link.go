package main

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/ca"
	"github.com/postern-project/postern/portal"
	"github.com/postern-project/postern/store"
	"github.com/spf13/cobra"
)

func newUserRecover(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "recover NAME",
		Short: "Let somebody back in who lost their certificates",
		Long: `Revoke every client certificate of a person, and make a one-time link by which
they get a new one. The link is sent to their address; without mail it is printed,
to be handed over.`,
		Example: "  postern user recover alice",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.userRecover(cmd.Context(), args[0]) },
	}
}

func (a *app) userRecover(ctx context.Context, name string) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	who, err := st.Store.Person(ctx, name)
	if err != nil {
		return err
	}
	if err := mayEnrol(who); err != nil {
		return err
	}
	links, err := portalLinks(ctx, st.Store)
	if err != nil {
		return err
	}
	authority, err := ca.Open(ctx, ca.Config{}, st.Store)
	if err != nil {
		return err
	}
	revoked, err := portal.RevokeClients(ctx, portalAuthority{authority}, name, time.Now(), portal.Origin{})
	if err != nil {
		return err
	}
	event := byHand(postern.Event{Kind: postern.EventPersonRecovered, Outcome: postern.OK, Person: name, Count: int64(revoked), Reason: "the command line"})
	if err := st.Store.Append(ctx, event); err != nil {
		return err
	}
	made, err := links.Recover(ctx, who)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "revoked %d of %s's certificates\n", revoked, name)
	a.printLink(who, made)
	return nil
}

func newUserInvite(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "invite NAME",
		Short: "Send somebody a link to a certificate",
		Long: `Make a one-time link by which a person gets a client certificate. It is sent to
their address; without mail it is printed, to be handed over. What they hold
stays good; who lost it needs postern user recover.`,
		Example: "  postern user invite alice",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.userInvite(cmd.Context(), args[0]) },
	}
}

func (a *app) userInvite(ctx context.Context, name string) error {
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	who, err := st.Store.Person(ctx, name)
	if err != nil {
		return err
	}
	if err := mayEnrol(who); err != nil {
		return err
	}
	return a.invite(ctx, st.Store, who)
}

// mayEnrol fails for somebody whom no link would let in.
func mayEnrol(who postern.Person) error {
	if who.Active() {
		return nil
	}
	return postern.Errorf(postern.Denied, "%s is %s", who.Name, who.Status).WithHint("let them in again first: postern user resume %s", who.Name)
}

// invite makes a link by which somebody enrols; NotFound if no portal ever ran
// on this state.
func (a *app) invite(ctx context.Context, db *store.DB, who postern.Person) error {
	links, err := portalLinks(ctx, db)
	if err != nil {
		return err
	}
	made, err := links.Invite(ctx, who)
	if err != nil {
		return err
	}
	a.printLink(who, made)
	return nil
}

// printLink says where a link went or, if it was not sent, what it is.
func (a *app) printLink(who postern.Person, made portal.Made) {
	if made.Sent {
		fmt.Fprintf(a.out, "a link is on its way to %s, good until %s\n", who.Email, stamp(made.Expires))
		return
	}
	fmt.Fprintf(a.out, "give %s this link; it counts once, until %s:\n  %s\n", who.Name, stamp(made.Expires), made.URL)
}
