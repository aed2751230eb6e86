package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/spf13/cobra"
)

// readAll reads a whole stream, which must not be larger than maxInput.
func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(data) > maxInput {
		err = postern.Errorf(postern.Invalid, "the input is larger than %d KiB", maxInput>>10)
	}
	return data, err
}

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
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.caList(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.filter.Person, "person", "", "only those of this `person`")
	f.StringVar(&o.filter.Name, "name", "", "only those with this `name`")
	f.StringVar(&o.profile, "profile", "", "only those of this `profile`: server, client, intermediate, ocsp")
	f.BoolVar(&o.valid, "valid", false, "only those that are neither expired nor revoked")
	f.BoolVar(&o.all, "all", false, "the authority's own, too")
	f.IntVarP(&o.filter.Limit, "limit", "n", 0, "at most so `many`; 0 means all")
	f.BoolVar(&o.json, "json", false, "print a JSON array")
	return cmd
}

func (a *app) caList(ctx context.Context, o *listOptions) error {
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	now := time.Now()
	o.filter.Profile = ca.Profile(o.profile)
	if o.valid {
		o.filter.Valid = now
	}
	list, err := authority.Certificates(ctx, o.filter)
	if err != nil {
		return err
	}
	shown := []certificateJSON{}
	for _, c := range list {
		if own := c.Profile == ca.ProfileIntermediate || c.Profile == ca.ProfileOCSP; own && !o.all && o.profile == "" {
			continue
		}
		shown = append(shown, certificateJSON{Certificate: c, Status: c.Status(now)})
	}
	if o.json {
		return printJSON(a.out, shown)
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, c := range shown {
		who := strings.Join(c.Names, " ")
		if c.Profile == ca.ProfileClient {
			who = strings.TrimSpace(c.Person + " " + c.Label)
		} else if who == "" {
			who = c.Subject
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", c.Serial, c.Profile, c.Status, c.NotAfter.UTC().Format(time.DateOnly), who)
	}
	return w.Flush()
}

func newCAShow(a *app) *cobra.Command {
	var asJSON, asPEM bool
	cmd := &cobra.Command{
		Use:     "show SERIAL",
		Short:   "Show one certificate",
		Long:    "Show what is known of a certificate, and where it says to ask about its revocation. The serial number may be\nwritten as browsers and openssl do.",
		Example: "  postern ca show 5f3a… --pem | openssl x509 -text",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.caShow(cmd.Context(), args[0], asJSON, asPEM) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object")
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the certificate and its chain in PEM")
	cmd.MarkFlagsMutuallyExclusive("json", "pem")
	return cmd
}

func (a *app) caShow(ctx context.Context, arg string, asJSON, asPEM bool) error {
	serial, err := serialArg(arg)
	if err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	c, err := authority.Load(ctx, serial)
	if err != nil {
		return err
	}
	status := c.Status(time.Now())
	switch {
	case asPEM:
		_, err = a.out.Write(c.PEM())
		return err
	case asJSON:
		return printJSON(a.out, certificateJSON{Certificate: c.Certificate, Status: status, PEM: string(c.PEM())})
	}
	a.describe(c.Certificate)
	fmt.Fprintf(a.out, "status   %s\nprofile  %s\nissuer   %s\nissued   %s\nkey      sha256:%s\n", status, c.Profile, ca.SubjectString(c.Leaf.RawIssuer), stamp(c.Issued), c.Certificate.Key)
	for _, line := range []struct{ name, value string }{{"person", c.Person}, {"label", c.Label}, {"renews", c.Renews}} {
		if line.value != "" {
			fmt.Fprintf(a.out, "%-8s %s\n", line.name, line.value)
		}
	}
	crl, ocsp := "not named in it", "not named in it"
	if len(c.Leaf.CRLDistributionPoints) > 0 {
		crl = strings.Join(c.Leaf.CRLDistributionPoints, " ")
	}
	if len(c.Leaf.OCSPServer) > 0 {
		ocsp = strings.Join(c.Leaf.OCSPServer, " ")
	}
	fmt.Fprintf(a.out, "crl      %s\nocsp     %s\n", crl, ocsp)
	if !c.Revoked.IsZero() {
		fmt.Fprintf(a.out, "revoked  %s, %s\n", stamp(c.Revoked), c.Reason)
	}
	return nil
}
