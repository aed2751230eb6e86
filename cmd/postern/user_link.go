package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

func newUserRecover(a *app) *cobra.Command {
	var keepOTP bool
	cmd := &cobra.Command{
		Use:   "recover NAME",
		Short: "Let somebody back in who lost their certificates",
		Long: `Switch off at once whatever somebody with a person's things could have, or could
have made with them, and make a one-time link by which they get a new certificate.

Certificates for their devices and SSH keys are revoked; YubiKeys, authenticator
apps, SSH keys and the keys of ACME accounts are disabled, and can be enabled
again in the portal; one-time links, open orders and recovery codes are void.
Certificates of servers stay as they are.

The link is sent to their address; without mail it is printed, to be handed over.`,
		Example: "  postern user recover alice\n  postern user recover --keep-otp alice",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.userRecover(cmd.Context(), args[0], keepOTP) },
	}
	cmd.Flags().BoolVar(&keepOTP, "keep-otp", false, "leave YubiKeys and authenticator apps on: they were not lost, and none was added by somebody else")
	return cmd
}

func (a *app) userRecover(ctx context.Context, name string, keepOTP bool) error {
	return a.sendLink(ctx, name, func(links *portal.Links, who postern.Person) (portal.Made, error) {
		e := byHand(postern.Event{Kind: postern.EventPersonRecovered, Outcome: postern.OK, Person: name, Reason: "the command line"})
		made, off, err := links.RecoverNow(ctx, postern.Actor{}, who, e, keepOTP)
		if err != nil {
			return made, err
		}
		for _, what := range off.Words() {
			fmt.Fprintf(a.out, "off: %s\n", what)
		}
		return made, nil
	})
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
	return a.sendLink(ctx, name, func(links *portal.Links, who postern.Person) (portal.Made, error) {
		return links.Invite(ctx, postern.Actor{}, who)
	})
}

// sendLink opens the state, has a link made for a person whom it would let in,
// and says where it went.
func (a *app) sendLink(ctx context.Context, name string, send func(*portal.Links, postern.Person) (portal.Made, error)) error {
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	who, err := st.Store.Person(ctx, name)
	if err != nil {
		return err
	}
	return a.sendLinkTo(ctx, st.Store, authority, who, send)
}

// sendLinkTo is sendLink where the state is open; NotFound if no portal ever ran
// on it.
func (a *app) sendLinkTo(ctx context.Context, db *store.DB, authority *ca.Authority, who postern.Person, send func(*portal.Links, postern.Person) (portal.Made, error)) error {
	if !who.Active() {
		return postern.Errorf(postern.Denied, "%s is %s", who.Name, who.Status).WithHint("let them in again first: postern user resume %s", who.Name)
	}
	links, err := portalLinks(ctx, db, authority)
	if err != nil {
		return err
	}
	made, err := send(links, who)
	if err != nil {
		return err
	}
	if made.Sent {
		fmt.Fprintf(a.out, "a link is on its way to %s, good until %s\n", who.Email, stamp(made.Expires))
		return nil
	}
	fmt.Fprintf(a.out, "give %s this link; it counts once, until %s:\n  %s\n", who.Name, stamp(made.Expires), made.URL)
	return nil
}

// userChange is what user set is to change.
type userChange struct {
	email, fullName *string // nil: as they are
	add, drop       []string
}

func newUserSet(a *app) *cobra.Command {
	var email, fullName string
	var c userChange
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a person's address, full name or groups",
		Long: `Change a person's address, full name or groups. Servers know it within a second.

When the address changes, the old one is told by mail, and one-time links that
were sent there are void. Certificates that the person has keep the address that
they were issued with until they are renewed.

Taking somebody who signed up by themselves out of the group ` + postern.SignedUp + `
approves them: until then the rules for SSH certificates that are for everybody
are not for them.`,
		Example: "  postern user set alice --email alice@example.org --add-group ops --drop-group audit\n  postern user set newcomer --drop-group " + postern.SignedUp,
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("email") {
				c.email = &email
			}
			if cmd.Flags().Changed("full-name") {
				c.fullName = &fullName
			}
			return a.userSet(cmd.Context(), args[0], c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&email, "email", "", "the person's new `ADDRESS`; empty takes it away")
	f.StringVar(&fullName, "full-name", "", "the person's `NAME` as people write it")
	f.StringSliceVar(&c.add, "add-group", nil, "a `GROUP` that the person joins; can be repeated")
	f.StringSliceVar(&c.drop, "drop-group", nil, "a `GROUP` that the person leaves; can be repeated")
	return cmd
}

func (c userChange) apply(p *postern.Person) {
	if c.email != nil {
		p.Email = *c.email
	}
	if c.fullName != nil {
		p.FullName = *c.fullName
	}
	p.Groups = append(p.Groups, c.add...)
	p.Groups = slices.DeleteFunc(p.Groups, func(g string) bool { return slices.Contains(c.drop, g) })
}

func (a *app) userSet(ctx context.Context, name string, c userChange) error {
	if c.email == nil && c.fullName == nil && len(c.add)+len(c.drop) == 0 {
		return postern.Errorf(postern.Invalid, "nothing is to be changed").WithHint("give --email, --full-name, --add-group or --drop-group")
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if c.email != nil {
		if err := permitsMail(authority, *c.email); err != nil {
			return err
		}
	}
	mail := func(postern.Person, string) *portal.Message { return nil }
	switch links, err := portalLinks(ctx, st.Store, authority); {
	case err == nil:
		mail = links.Changed("an administrator")
	case postern.CodeOf(err) != postern.NotFound:
		return err
	}
	event := byHand(postern.Event{Kind: postern.EventPersonChanged, Person: name})
	what, err := store.NewPortal(st.Store).ChangePerson(ctx, postern.Actor{}, name, c.apply, event, mail)
	switch {
	case err != nil:
		return err
	case what == "":
		fmt.Fprintf(a.out, "%s is so already\n", name)
	default:
		fmt.Fprintf(a.out, "%s: %s\n", name, what)
	}
	return nil
}

// permitsMail fails for an address with which no certificate can be issued here.
func permitsMail(authority *ca.Authority, email string) error {
	email, err := postern.CleanEmail(email)
	if err != nil {
		return nil // says the store
	}
	return authority.PermitsMail(email)
}
