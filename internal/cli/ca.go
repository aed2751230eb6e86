//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newCA(a *app) *cobra.Command {
	return group("ca", "Certificates: issue, renew, revoke, export",
		newCAIssue(a), newCASign(a), newCAList(a), newCAShow(a), newCARenew(a), newCARevoke(a), newCACRL(a),
		hidden(newSSHKRL(a)),
		newCAExport(a), newCARoot(a), newCAIntermediate(a), newCAToken(a), newCAURL(a), newCAProfile(a),
		newACMEKeys(a),
	)
}

// onCertificate returns a command that works on the certificate whose serial number is
// its argument.
func (a *app) onCertificate(
	use, short string, do func(context.Context, *ca.Authority, *ca.Issued) error,
) *cobra.Command {
	return plain(use, short, func(ctx context.Context, args []string) error {
		serial, err := ca.ParseSerial(args[0])
		if err != nil {
			return err
		}
		return a.withCA(ctx, func(authority *ca.Authority) error {
			c, err := authority.Load(ctx, serial)
			if err != nil {
				return err
			}
			return do(ctx, authority, c)
		})
	})
}

func newCARevoke(a *app) *cobra.Command {
	var reason, person string
	var ssh bool
	cmd := plain("revoke (SERIAL... | --person PERSON)", "Revoke certificates",
		func(ctx context.Context, args []string) error {
			switch {
			case (len(args) > 0) == (person != ""):
				return postern.Errorf(postern.Invalid, "say which: serial numbers, or --person PERSON").
					WithHint("list the certificates")
			case ssh:
				return a.revokeSSH(ctx, args)
			}
			return a.caRevoke(ctx, reason, person, args)
		})
	reasons := strings.Join(postern.RevocationReasonNames(), ", ")
	cmd.Flags().StringVar(&reason, "reason", postern.Unspecified.String(), "`REASON`: "+reasons)
	cmd.Flags().StringVar(&person, "person", "", "revoke all client certificates of this `PERSON`")
	cmd.Flags().BoolVar(&ssh, "ssh", false, "the serial numbers are of SSH certificates")
	_ = cmd.Flags().MarkHidden("ssh") // the old spelling of postern ssh revoke
	cmd.MarkFlagsMutuallyExclusive("person", "ssh")
	return cmd
}

func (a *app) caRevoke(ctx context.Context, why, person string, args []string) error {
	reason, err := postern.ParseRevocationReason(why)
	if err != nil {
		return err
	}
	serials, err := ca.ParseSerials(args)
	if err != nil {
		return err
	}
	return a.withCA(ctx, func(authority *ca.Authority) error {
		if person != "" {
			if serials, err = authority.ValidOf(ctx, person); err != nil {
				return err
			}
		}
		done, err := authority.RevokeAll(ctx, serials, reason, postern.Actor{})
		for _, r := range done {
			a.printRevoked(r)
		}
		return err
	})
}

func (a *app) printRevoked(r ca.Revoked) {
	fmt.Fprintf(a.out, "revoked %s\n", r.Serial)
	if r.Issuer == nil {
		return
	}
	fmt.Fprintf(a.out, "the %s CA signs no more certificates, and all that it issued are revoked with it\n",
		r.Issuer.ID)
	if r.Next == "" {
		fmt.Fprintf(a.out, "nothing issues for its role now; make the next one: %s\n",
			newIntermediateCommand(r.Issuer.Role))
		return
	}
	fmt.Fprintf(a.out, "%s issues from now on\n", r.Next)
}

func newCACRL(a *app) *cobra.Command {
	var issuer string
	var der bool
	cmd := fileCommand(a, "crl", "Print a revocation list", a.withCA,
		func(ctx context.Context, authority *ca.Authority, _ []string) ([]byte, error) {
			crl, err := authority.CRL(ctx, issuer)
			if der {
				return crl.DER, err
			}
			return crl.PEM(), err
		})
	cmd.Flags().StringVar(&issuer, "issuer", string(ca.Client),
		"`CA`: client, server, root, or a later one such as client-2")
	cmd.Flags().BoolVar(&der, "der", false, "DER instead of PEM")
	return cmd
}

// newPKCS11Module makes the command that the program runs itself, for a PKCS#11
// module.
func newPKCS11Module() *cobra.Command {
	return hidden(plain(module.Command, "Load a PKCS#11 module, for the process that started this",
		func(context.Context, []string) error { return module.Serve() }))
}

func newCAList(a *app) *cobra.Command {
	var filter ca.Filter
	var valid, all bool
	cmd := listCommand(a, "list", "List certificates", a.withCA, "SERIAL PROFILE STATUS EXPIRES FOR",
		func(ctx context.Context, authority *ca.Authority, _ []string) (shown []ca.CertificateInfo, err error) {
			if filter.Leaves = !all && filter.Profile == ""; valid {
				filter.Valid = time.Now()
			}
			list, err := authority.Certificates(ctx, filter)
			for _, c := range list {
				shown = append(shown, c.Info())
			}
			return shown, err
		}, func(c ca.CertificateInfo) []string {
			return []string{c.Serial, string(c.Profile), c.Status, terminal.Day(c.NotAfter), c.For()}
		})
	f := cmd.Flags()
	f.StringVar(&filter.Person, "person", "", "only those of this `PERSON`")
	f.StringVar(&filter.Name, "name", "", "only those with this `NAME`")
	f.StringVar((*string)(&filter.Profile), "profile", "",
		"only those of this `PROFILE`: server, client, intermediate, ocsp")
	f.BoolVar(&valid, "valid", false, "only those that are neither expired nor revoked")
	f.BoolVar(&all, "all", false, "the authority's own, too")
	f.StringVar(&filter.After, "after", "", "only those issued before `SERIAL`, the last one of the page before")
	f.IntVarP(&filter.Limit, "limit", "n", 0, "at most `N`; 0 means all")
	return cmd
}

func newCAShow(a *app) *cobra.Command {
	var asPEM bool
	var asJSON *bool
	cmd := a.onCertificate("show SERIAL", "Show one certificate",
		func(_ context.Context, _ *ca.Authority, c *ca.Issued) error {
			if asPEM {
				_, err := a.out.Write(c.PEM())
				return err
			}
			info := c.Info()
			return a.printer().Fields(info, *asJSON, allFields(c, info.Status)...)
		})
	asJSON = jsonFlag(cmd)
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the certificate and its chain in PEM")
	cmd.MarkFlagsMutuallyExclusive("json", "pem")
	return cmd
}

// issuedFields are what a certificate says.
func issuedFields(c ca.Certificate) []terminal.Field {
	return []terminal.Field{
		{"serial", c.Serial},
		{"subject", c.Subject},
		{"names", strings.Join(c.Names, " ")},
		{"valid", terminal.Time(c.NotBefore) + " to " + terminal.Time(c.NotAfter)},
	}
}

// allFields are what is known of a certificate.
func allFields(c *ca.Issued, status string) []terminal.Field {
	fields := append(issuedFields(c.Certificate),
		terminal.Field{"status", status},
		terminal.Field{"profile", string(cmp.Or(c.Policy, c.Profile))},
		terminal.Field{"issuer", ca.SubjectString(c.Leaf.RawIssuer)},
		terminal.Field{"issued", terminal.Time(c.Issued)},
		terminal.Field{"key", "sha256:" + c.Certificate.Key},
		terminal.Field{"attested", c.Attested()},
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

func newCAProfile(a *app) *cobra.Command {
	return group("profile", "Profiles: what certificates are like", newCAProfileList(a))
}

func newCAProfileList(a *app) *cobra.Command {
	return listCommand(a, "list", "List the profiles of certificates", a.withCA,
		"PROFILE VALID LONGEST KEYS DESCRIPTION",
		func(_ context.Context, authority *ca.Authority, _ []string) (list []ca.PolicyInfo, _ error) {
			for _, p := range authority.Policies() {
				list = append(list, p.Info())
			}
			return list, nil
		}, func(p ca.PolicyInfo) []string {
			keys := make([]string, len(p.Keys))
			for i, k := range p.Keys {
				keys[i] = string(k)
			}
			return []string{
				string(p.Profile), lifetime(p.Validity), lifetime(p.Max), cmp.Or(strings.Join(keys, " "), "any"),
				terminal.Dash(p.Description),
			}
		})
}

// lifetime writes a length of time that is in seconds.
func lifetime(seconds int64) string { return ca.Lifetime(time.Duration(seconds) * time.Second) }

// urlJSON is where certificates say to ask about revocation, as it is printed.
type urlJSON struct {
	URL    string `json:"url"`
	Chosen bool   `json:"chosen"` // and not the portal's
}

func newCAURL(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "url [URL | portal | none]",
		Short: "Where certificates say to ask about revocation",
		Args:  cobra.MaximumNArgs(1),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(a.withCA, func(ctx context.Context, authority *ca.Authority, args []string) error {
		if len(args) == 0 {
			return a.showURL(authority, *asJSON)
		}
		if err := authority.SetURL(ctx, args[0]); err != nil {
			return err
		}
		err := a.showURL(authority, false)
		for _, role := range authority.Unlisted() {
			fmt.Fprintf(a.out, "the %s CA does not say where to ask about it; one that does: %s\n", role,
				newIntermediateCommand(role))
		}
		return err
	})
	return cmd
}

func (a *app) showURL(authority *ca.Authority, asJSON bool) error {
	url, chosen := authority.URL(), authority.URLChosen()
	from := map[bool]string{true: "chosen", false: "the portal's host"}[chosen]
	switch {
	case asJSON:
		return terminal.JSON(a.out, urlJSON{url, chosen})
	case url != "":
		return a.done(nil, "%s (%s)\n", url, from)
	case chosen:
		return a.done(nil, "none (chosen)\n")
	}
	return a.done(nil, "none: no server has run yet with a portal that other hosts reach\n")
}
