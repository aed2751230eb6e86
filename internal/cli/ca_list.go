//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newCAList(a *app) *cobra.Command {
	var filter ca.Filter
	var valid, all bool
	cmd := listCommand(a, &cobra.Command{
		Use:   "list",
		Short: "List certificates",
	}, a.withCA, "SERIAL PROFILE STATUS EXPIRES FOR",
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
	cmd := &cobra.Command{Use: "show SERIAL", Short: "Show one certificate"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = a.onCertificate(func(_ context.Context, _ *ca.Authority, c *ca.Issued) error {
		if asPEM {
			_, err := a.out.Write(c.PEM())
			return err
		}
		info := c.Info()
		return a.printer().Fields(info, *asJSON, allFields(c, info.Status)...)
	})
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
