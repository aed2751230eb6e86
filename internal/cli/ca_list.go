package cli

import (
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// certificateJSON is a certificate as commands print it.
type certificateJSON struct {
	ca.Certificate
	Status string `json:"status"`
	PEM    string `json:"pem,omitempty"`
}

// listOptions are the flags of ca list.
type listOptions struct {
	filter  ca.Filter
	profile string
	valid   bool
	all     bool
	json    bool
}

func newCAList(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List certificates",
		Long: `List the server and client certificates that were issued, newest first. With --all
also the intermediates and those that sign OCSP answers.`,
		Example: `  postern ca list --person dan --valid
  postern ca list --name www.example.com --json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.caList(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.filter.Person, "person", "", "only those of this `PERSON`")
	f.StringVar(&o.filter.Name, "name", "", "only those with this `NAME`")
	f.StringVar(&o.profile, "profile", "", "only those of this `PROFILE`: server, client, intermediate, ocsp")
	f.BoolVar(&o.valid, "valid", false, "only those that are neither expired nor revoked")
	f.BoolVar(&o.all, "all", false, "the authority's own, too")
	f.IntVarP(&o.filter.Limit, "limit", "n", 0, "at most `N`; 0 means all")
	jsonFlag(cmd, &o.json)
	return cmd
}

func (a *app) caList(ctx context.Context, o *listOptions) error {
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		now := time.Now()
		o.filter.Profile = ca.Profile(o.profile)
		if o.valid {
			o.filter.Valid = now
		}
		list, err := authority.Certificates(ctx, o.filter)
		if err != nil {
			return err
		}
		var shown []certificateJSON
		for _, c := range list {
			if own := c.Profile == ca.ProfileIntermediate || c.Profile == ca.ProfileOCSP; own && !o.all &&
				o.profile == "" {
				continue
			}
			shown = append(shown, certificateJSON{Certificate: c, Status: c.Status(now)})
		}
		return terminal.List(a.printer(), shown, o.json, "SERIAL PROFILE STATUS EXPIRES FOR",
			func(c certificateJSON) []string {
				return []string{c.Serial, string(c.Profile), c.Status, terminal.Day(c.NotAfter), c.holder()}
			})
	})
}

// holder returns whom or what a certificate is for.
func (c certificateJSON) holder() string {
	switch {
	case c.Profile == ca.ProfileClient:
		return strings.TrimSpace(c.Person + " " + c.Label)
	case len(c.Names) > 0:
		return strings.Join(c.Names, " ")
	}
	return c.Subject
}

func newCAShow(a *app) *cobra.Command {
	var asJSON, asPEM bool
	cmd := &cobra.Command{
		Use:   "show SERIAL",
		Short: "Show one certificate",
		Long: "Show what is known of a certificate, and where it says to ask about its revocation. The serial " +
			"number may be\nwritten as browsers and openssl do.",
		Example: "  postern ca show 5f3a… --pem | openssl x509 -text",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.caShow(cmd.Context(), args[0], asJSON, asPEM)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the certificate and its chain in PEM")
	cmd.MarkFlagsMutuallyExclusive("json", "pem")
	return cmd
}

func (a *app) caShow(ctx context.Context, arg string, asJSON, asPEM bool) error {
	serial, err := ca.ParseSerial(arg)
	if err != nil {
		return err
	}
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		c, err := authority.Load(ctx, serial)
		if err != nil {
			return err
		}
		if asPEM {
			_, err = a.out.Write(c.PEM())
			return err
		}
		shown := certificateJSON{Certificate: c.Certificate, Status: c.Status(time.Now()), PEM: string(c.PEM())}
		return a.printer().Fields(shown, asJSON, allFields(c, shown.Status)...)
	})
}

// allFields are what is known of a certificate.
func allFields(c *ca.Issued, status string) []terminal.Field {
	fields := append(issuedFields(c.Certificate),
		terminal.Field{"status", status},
		terminal.Field{"profile", string(c.Profile)},
		terminal.Field{"issuer", ca.SubjectString(c.Leaf.RawIssuer)},
		terminal.Field{"issued", terminal.Time(c.Issued)},
		terminal.Field{"key", "sha256:" + c.Certificate.Key},
		terminal.Field{"person", c.Person},
		terminal.Field{"label", c.Label},
		terminal.Field{"renews", c.Renews},
		terminal.Field{"crl", named(c.Leaf.CRLDistributionPoints)},
		terminal.Field{"ocsp", named(c.Leaf.OCSPServer)},
	)
	if !c.Revoked.IsZero() {
		fields = append(fields, terminal.Field{"revoked", terminal.Time(c.Revoked) + ", " + c.Reason.String()})
	}
	return fields
}

// named returns the URLs that a certificate names.
func named(urls []string) string {
	if len(urls) == 0 {
		return "not named in it"
	}
	return strings.Join(urls, " ")
}
