package cli

import (
	"context"
	"encoding/pem"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/spf13/cobra"
)

// revokeOptions are the flags of ca revoke.
type revokeOptions struct {
	reason string
	person string
	ssh    bool
}

func newCARevoke(a *app) *cobra.Command {
	var o revokeOptions
	cmd := &cobra.Command{
		Use:   "revoke (SERIAL... | --person PERSON)",
		Short: "Revoke certificates",
		Long: `Revoke certificates for good. From then on the front door refuses them, OCSP answers
"revoked", and the revocation list holds them. A key that was revoked for
keyCompromise is not certified again.

An intermediate (ca list --all shows them) signs no more certificates, and all
that it issued are revoked with it. Make the next one before, so that its role
goes on: postern ca intermediate new. What it had issued is made anew by postern
ca renew.`,
		Example: `  postern ca revoke 5f3a… --reason keyCompromise
  postern ca revoke --person dan`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.caRevoke(cmd.Context(), &o, args) },
	}
	cmd.Flags().StringVar(&o.reason, "reason", postern.Unspecified.String(), "`REASON`: "+strings.Join(postern.RevocationReasonNames(), ", "))
	cmd.Flags().StringVar(&o.person, "person", "", "revoke all client certificates of this `PERSON`")
	cmd.Flags().BoolVar(&o.ssh, "ssh", false, "the serial numbers are of SSH certificates")
	_ = cmd.Flags().MarkHidden("ssh") // the old spelling of postern ssh revoke
	cmd.MarkFlagsMutuallyExclusive("person", "ssh")
	return cmd
}

func (a *app) caRevoke(ctx context.Context, o *revokeOptions, args []string) error {
	if (len(args) > 0) == (o.person != "") {
		return postern.Errorf(postern.Invalid, "say which: serial numbers, or --person PERSON").WithHint("postern ca list shows them")
	}
	reason, err := postern.ParseRevocationReason(o.reason)
	if err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if o.ssh {
		return a.revokeSSH(ctx, authority, args)
	}
	serials, err := revocable(ctx, authority, o.person, args)
	if err != nil {
		return err
	}
	for _, s := range serials {
		if err := authority.Revoke(ctx, s, reason, postern.Actor{}); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "revoked %s\n", s)
		if err := a.sayRevokedCA(ctx, authority, s); err != nil {
			return err
		}
	}
	return nil
}

// revocable returns the serial numbers to revoke: those that were given, or those of
// the valid client certificates of a person.
func revocable(ctx context.Context, authority *ca.Authority, person string, args []string) ([]string, error) {
	var serials []string
	for _, arg := range args {
		s, err := serialArg(arg)
		if err != nil {
			return nil, err
		}
		serials = append(serials, s)
	}
	if person != "" {
		list, err := authority.Certificates(ctx, ca.Filter{Person: person, Profile: ca.ProfileClient, Valid: time.Now()})
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			return nil, postern.Errorf(postern.NotFound, "%s has no valid client certificate", person)
		}
		for _, c := range list {
			serials = append(serials, c.Serial)
		}
	}
	return serials, nil
}

// sayRevokedCA says what follows when a certificate that was revoked is an
// intermediate's.
func (a *app) sayRevokedCA(ctx context.Context, authority *ca.Authority, serial string) error {
	c, err := authority.Load(ctx, serial)
	if err != nil {
		return err
	}
	i := authority.Owner(c.Certificate)
	if i == nil {
		return nil
	}
	fmt.Fprintf(a.out, "the %s CA signs no more certificates, and all that it issued are revoked with it\n", i.ID)
	if authority.Trusted(i.Role) == nil {
		fmt.Fprintf(a.out, "nothing issues for its role now; make the next one: %s\n", newIntermediateCommand(i.Role))
		return nil
	}
	fmt.Fprintf(a.out, "%s issues from now on\n", authority.Chain(i.Role)[0].Subject.CommonName)
	return nil
}

func (a *app) revokeSSH(ctx context.Context, authority *ca.Authority, args []string) error {
	for _, arg := range args {
		serial, err := strconv.ParseUint(arg, 10, 63)
		if err != nil {
			return postern.Errorf(postern.Invalid, "%q is not the serial number of an SSH certificate", arg)
		}
		if err := authority.RevokeSSH(ctx, serial, postern.Actor{}); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "revoked SSH certificate %d\n", serial)
	}
	return nil
}

func newCACRL(a *app) *cobra.Command {
	var issuer, out string
	var der bool
	cmd := &cobra.Command{
		Use:   "crl",
		Short: "Print a revocation list",
		Long: `Print the revocation list of one CA as it stands now, for servers that read it from a
file: write it to a temporary file, rename that, and have the server reload.`,
		Example: `  postern ca crl --issuer client --out /etc/ssl/client.crl
  postern ca crl --issuer server --der > server.crl`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.caCRL(cmd.Context(), issuer, out, der) },
	}
	cmd.Flags().StringVar(&issuer, "issuer", string(ca.Client), "`CA`: client, server, root, or a later one such as client-2")
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE`, replaced as a whole (default: standard output)")
	cmd.Flags().BoolVar(&der, "der", false, "DER instead of PEM")
	return cmd
}

func (a *app) caCRL(ctx context.Context, issuer, out string, der bool) error {
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	crl, err := authority.CRL(ctx, issuer)
	if err != nil {
		return err
	}
	data := crl.DER
	if !der {
		data = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl.DER})
	}
	return a.writeOutput(out, data, 0o644, true)
}
