//go:build !noserver

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11/module"
	"github.com/spf13/cobra"
)

func newCA(a *app) *cobra.Command {
	return group("ca", "Certificates: issue, renew, revoke, export",
		newCAIssue(a), newCASign(a), newCAList(a), newCAShow(a), newCARenew(a), newCARevoke(a), newCACRL(a),
		oldSpelling(newSSHKRL(a)),
		newCAExport(a), newCARoot(a), newCAIntermediate(a), newCAToken(a), newCAURL(a), newCAProfile(a),
		newACMEKeys(a),
	)
}

// onCertificate returns what a command runs that works on the certificate whose serial
// number is its argument.
func (a *app) onCertificate(
	do func(context.Context, *ca.Authority, *ca.Issued) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		serial, err := ca.ParseSerial(args[0])
		if err != nil {
			return err
		}
		return a.withCA(cmd.Context(), func(authority *ca.Authority) error {
			c, err := authority.Load(cmd.Context(), serial)
			if err != nil {
				return err
			}
			return do(cmd.Context(), authority, c)
		})
	}
}

func newCARevoke(a *app) *cobra.Command {
	var reason, person string
	var ssh bool
	cmd := &cobra.Command{
		Use:   "revoke (SERIAL... | --person PERSON)",
		Short: "Revoke certificates",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case (len(args) > 0) == (person != ""):
				return postern.Errorf(postern.Invalid, "say which: serial numbers, or --person PERSON").
					WithHint("list the certificates")
			case ssh:
				return a.revokeSSH(cmd.Context(), args)
			}
			return a.caRevoke(cmd.Context(), reason, person, args)
		},
	}
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
	cmd := fileCommand(a, &cobra.Command{
		Use:   "crl",
		Short: "Print a revocation list",
	}, a.withCA, func(ctx context.Context, authority *ca.Authority, _ []string) ([]byte, error) {
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
	return &cobra.Command{
		Use:    module.Command,
		Short:  "Load a PKCS#11 module, for the process that started this",
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return module.Serve() },
	}
}
