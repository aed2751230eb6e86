package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

// newACME returns the ACME server over the authority. Close it before the
// store.
func newACME(ctx context.Context, st *state.State, authority *ca.Authority, cfg acme.Config, look reach.Config, log *slog.Logger) (*acme.Server, error) {
	prober, err := reach.New(look)
	if err != nil {
		return nil, err
	}
	return acme.New(ctx, cfg, st.Store.ACME(), acmeIssuer{authority, st.Store}, prober, log)
}

// acmeIssuer is the authority as the ACME server sees it.
type acmeIssuer struct {
	*ca.Authority
	store *store.DB
}

// Permit implements [acme.Issuer].
func (i acmeIssuer) Permit(names []string) error { return i.Permits(names) }

// Issue implements [acme.Issuer].
func (i acmeIssuer) Issue(ctx context.Context, by postern.Actor, csr []byte, names []string, f acme.Finish) (acme.Order, error) {
	c, err := i.PrepareCSR(ctx, csr, ca.SignRequest{Profile: ca.ProfileServer, Names: names, Proved: names, By: by})
	if err != nil {
		return acme.Order{}, err
	}
	return i.store.ACME().FinishOrder(ctx, by, c.Certificate, c.Event, f)
}

// Certificate implements [acme.Issuer].
func (i acmeIssuer) Certificate(ctx context.Context, serial string) (acme.Certificate, error) {
	c, err := i.Load(ctx, serial)
	if err != nil {
		return acme.Certificate{}, err
	}
	if c.Profile != ca.ProfileServer { // an intermediate, or somebody's own: not ACME's to give or to revoke
		return acme.Certificate{}, postern.Errorf(postern.NotFound, "no server certificate %s was issued here", serial)
	}
	return acme.Certificate{
		Chain: c.PEM(), DER: c.DER, AuthorityKeyID: c.Leaf.AuthorityKeyId, Names: c.Names,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: !c.Revoked.IsZero(),
	}, nil
}

// Revoke implements [acme.Issuer].
func (i acmeIssuer) Revoke(ctx context.Context, by postern.Actor, serial string, reason int) error {
	return i.Authority.Revoke(ctx, serial, ca.Reason(reason), by)
}

// ValidReason implements [acme.Issuer].
func (i acmeIssuer) ValidReason(reason int) bool { return ca.Reason(reason).Valid() }

func newACMEKeys(a *app) *cobra.Command {
	return group("acme", "Keys that bind ACME accounts to people", newACMEAdd(a), newACMEList(a), newACMEDisable(a))
}

func newACMEAdd(a *app) *cobra.Command {
	var label string
	cmd := &cobra.Command{
		Use:   "add PERSON",
		Short: "Make a key for a person's ACME client",
		Long: `Makes an external account binding key. An ACME client that registers with it gets an account that belongs to
the person: suspending the person stops the account. A key binds one account. It is shown once.`,
		Example: "  postern ca acme add alice --label www\n  certbot register --server https://id.example.com/acme/directory --eab-kid KID --eab-hmac-key KEY",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			k := acme.NewExternalKey(args[0], label, time.Now())
			if err := st.Store.ACME().AddExternalKey(cmd.Context(), postern.Actor{}, k, acmeKeyEvent(k.Person, k.ID, k.Label, postern.ACMEKeyMade)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "key ID    %s\nHMAC key  %s\n", k.ID, base64.RawURLEncoding.EncodeToString(k.Secret))
			return err
		},
	}
	cmd.Flags().StringVar(&label, "label", "", "a `NAME` for what the key is for")
	return cmd
}

// acmeKeyEvent tells what was done to a key, which has a label only when it is made.
func acmeKeyEvent(person, id, label, did string) postern.Event {
	e := postern.Event{Kind: postern.EventACMEAccount, Outcome: postern.OK, Person: person, Object: id, Details: map[string]string{"did": did}}
	if label != "" {
		e.Details["label"] = label
	}
	return e
}

func newACMEList(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list PERSON",
		Short:   "List a person's keys",
		Example: "  postern ca acme list alice",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			if _, err := st.Store.Person(cmd.Context(), args[0]); err != nil {
				return err
			}
			keys, err := st.Store.ACME().ExternalKeys(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, keys)
			}
			for _, k := range keys {
				status := "unused"
				switch {
				case k.Disabled:
					status = "disabled"
				case k.Account != "":
					status = "account " + k.Account
				}
				fmt.Fprintf(a.out, "%s  %s  %s  %s\n", k.ID, k.Created.Format(time.DateOnly), status, k.Label)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newACMEDisable(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "disable PERSON KEY",
		Short:   "Disable a key, and the account that it binds",
		Example: "  postern ca acme disable alice KEY   # as `postern ca acme list alice` shows it",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			return st.Store.ACME().DisableExternalKey(cmd.Context(), postern.Actor{}, args[0], args[1], acmeKeyEvent(args[0], args[1], "", postern.ACMEKeyDisabled))
		},
	}
}
