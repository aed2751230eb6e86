//go:build !noserver

package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// outputOptions say how a certificate is written to files.
type outputOptions struct {
	ca.Output
	passwordFile string
	random       bool // the password was made here
}

func (o *outputOptions) flags(cmd *cobra.Command, layouts string) {
	f := cmd.Flags()
	f.StringVarP(&o.Dir, "out", "o", ".", "`DIRECTORY` for the files")
	f.Func("layout", "`LAYOUT` of the files: apache, nginx, haproxy, libvirt, postgresql, pem, pkcs12 (default "+
		layouts+")", each(o.AddLayout))
	f.BoolVar(&o.Force, "force", false, "replace files that exist")
	f.BoolVar(&o.Legacy, "legacy", false, "write PKCS#12 with the old encryption that old importers need")
	f.StringVar(&o.passwordFile, "password-file", "",
		"`FILE` with the password for PKCS#12; - is standard input (default: ask, or make one and print it)")
}

// prepare completes the options, and asks for a password if one is needed.
func (a *app) prepare(o *outputOptions, p ca.Profile, newKey bool) (err error) {
	if err := o.Complete(p, newKey); err != nil {
		return err
	}
	if o.NeedsPassword() {
		o.Password, o.random, err = a.prompt().NewPassword(o.passwordFile, "the PKCS#12 file")
	}
	return err
}

// writeFiles writes a certificate, and says where, and what the password is if
// no other process has it yet.
func (a *app) writeFiles(o *outputOptions, i *ca.Issued) error {
	files, err := o.Write(i)
	for _, f := range files {
		fmt.Fprintf(a.out, "wrote    %s\n", f)
	}
	if err == nil && o.random {
		fmt.Fprintf(a.out, "password %s (of the PKCS#12 file; it is not shown again)\n", o.Password)
	}
	return err
}

// writeIssued describes a new certificate, and writes it.
func (a *app) writeIssued(o *outputOptions, i *ca.Issued) error {
	if err := a.printer().Fields(nil, false, issuedFields(i.Certificate)...); err != nil {
		return err
	}
	return a.writeFiles(o, i)
}

// requestFlags are the flags that say what a new certificate is like.
func requestFlags(cmd *cobra.Command, r *ca.SignRequest, client string) {
	f := cmd.Flags()
	f.StringVar(&r.Person, "client", "", client)
	f.StringVar(&r.Label, "label", "", "the person's own `NAME` for where it is used")
	f.StringSliceVar(&r.Units, "unit", nil, "organisational `UNIT` (OU) in a client's subject")
	f.Var((*terminal.Content)(&r.Attestation), "attestation",
		"`FILE` with the attestation (PEM) of a client's key by its YubiKey; can be repeated")
	periodFlags(cmd, &r.Period, &r.Profile, string(ca.ProfileServer), "")
	cmd.MarkFlagsMutuallyExclusive("client", "profile")
}

// periodFlags are the flags that say how long a certificate is valid.
func periodFlags(cmd *cobra.Command, p *ca.Period, profile *ca.Profile, fallback, said string) {
	f := cmd.Flags()
	f.Var((*terminal.Duration)(&p.Validity), "validity",
		"how long it is valid, a `DURATION` such as 90d (default: the profile's)")
	f.StringVar((*string)(profile), "profile", fallback,
		"`PROFILE` of a server's certificate; postern ca profile list shows them"+said)
}

// issueOptions are the flags of ca issue.
type issueOptions struct {
	outputOptions
	request   ca.SignRequest
	algorithm ca.Algorithm
}

func newCAIssue(a *app) *cobra.Command {
	var o issueOptions
	cmd := plain("issue (--server NAME... | --client PERSON)", "Make a key and a certificate for it",
		func(ctx context.Context, args []string) error { return a.caIssue(ctx, &o, args) })
	o.flags(cmd, "pem for servers, pkcs12 and pem for persons")
	requestFlags(cmd, &o.request, "`PERSON` that the certificate is for")
	cmd.Flags().StringSliceVar(&o.request.Names, "server", nil, "`NAME` of the server; more may follow")
	cmd.Flags().StringVar((*string)(&o.algorithm), "key-type", "",
		"`TYPE` of the key: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096 (default: the profile's first; rsa-3072 for "+
			"libvirt, which may refuse others)")
	return cmd
}

func (a *app) caIssue(ctx context.Context, o *issueOptions, args []string) error {
	r, profile := &o.request, ca.ProfileServer
	switch client := r.Person != ""; {
	case (len(r.Names) > 0) == client:
		return postern.Errorf(postern.Invalid, "say what it is for: --server NAME..., or --client PERSON").
			WithHint("see postern ca issue --help")
	case client && len(args) > 0:
		return postern.Errorf(postern.Invalid, "a client certificate is for one person, %q is too much", args[0])
	case client:
		profile = ca.ProfileClient
	}
	r.Names = append(r.Names, args...)
	if err := a.prepare(&o.outputOptions, profile, len(r.Attestation) == 0); err != nil {
		return err
	}
	return a.withCA(ctx, func(authority *ca.Authority) error {
		issued, err := o.Issue(ctx, authority, o.algorithm, o.request)
		if err != nil {
			return err
		}
		return a.writeIssued(&o.outputOptions, issued)
	})
}

// signOptions are the flags of ca sign.
type signOptions struct {
	request  ca.SignRequest
	csr, out string
	force    bool
}

func newCASign(a *app) *cobra.Command {
	var o signOptions
	cmd := command("sign --csr FILE [--client PERSON]", "Certify the key of a certificate request", a.withCA,
		func(ctx context.Context, authority *ca.Authority, _ []string) error {
			csr, err := a.prompt().Read(o.csr)
			if err != nil {
				return err
			}
			if !o.force {
				if err := checkNew(o.out); err != nil {
					return err
				}
			}
			issued, err := authority.IssueCSR(ctx, csr, o.request)
			if err != nil {
				return err
			}
			return a.print(o.out, issued.PEM())
		})
	requestFlags(cmd, &o.request, "make it the client certificate of this `PERSON`")
	f := cmd.Flags()
	f.StringVar(&o.csr, "csr", "", "`FILE` with the request; - is standard input")
	f.StringSliceVar(&o.request.Names, "name", nil,
		"certify this `NAME`, in place of those in the request; can be repeated")
	f.StringVarP(&o.out, "out", "o", "", "`FILE` for the certificate and its chain; - is standard output, the default")
	f.BoolVar(&o.force, "force", false, "replace the file if it exists")
	required(cmd, "csr")
	return cmd
}

func newCARenew(a *app) *cobra.Command {
	var o outputOptions
	var r ca.RenewRequest
	var csr string
	cmd := a.onCertificate("renew SERIAL", "Issue the successor of a certificate",
		func(ctx context.Context, authority *ca.Authority, old *ca.Issued) (err error) {
			if csr != "" {
				data, err := a.prompt().Read(csr)
				if err != nil {
					return err
				}
				if r.Key, err = ca.CSRKey(data); err != nil {
					return err
				}
			}
			if err := a.prepare(&o, old.Profile, r.Key == nil && !r.SameKey); err != nil {
				return err
			}
			issued, err := o.Renew(ctx, authority, old, r)
			if err != nil {
				return err
			}
			return a.writeIssued(&o, issued)
		})
	o.flags(cmd, "pem for servers, pkcs12 and pem for persons")
	cmd.Flags().StringVar(&csr, "csr", "", "`FILE` with a request whose key is certified; - is standard input")
	cmd.Flags().BoolVar(&r.SameKey, "same-key", false, "certify the old key again")
	periodFlags(cmd, &r.Period, &r.Profile, "", " (default: the certificate's)")
	cmd.MarkFlagsMutuallyExclusive("csr", "same-key")
	return cmd
}

// keyFile names a file with a private key, and the one with its passphrase.
type keyFile struct{ path, passphrase string }

// readKey reads a private key, in PEM or PKCS#12. If cert is not nil, it has to be
// that certificate's.
func (a *app) readKey(k keyFile, cert *x509.Certificate) (crypto.Signer, error) {
	data, err := a.prompt().Read(k.path)
	if err != nil {
		return nil, err
	}
	key, err := ca.ReadKey(data, cert, func() ([]byte, error) { return a.prompt().Passphrase(k.passphrase, k.path) })
	if err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "%s: %w", k.path, err).WithHint("%s", postern.HintOf(err))
	}
	return key, nil
}

func newCAExport(a *app) *cobra.Command {
	var o outputOptions
	var key keyFile
	cmd := a.onCertificate("export SERIAL --layout LAYOUT", "Write a certificate as another program wants it",
		func(_ context.Context, _ *ca.Authority, c *ca.Issued) (err error) {
			if key.path != "" {
				if c.Key, err = a.readKey(key, c.Leaf); err != nil {
					return err
				}
			}
			if err := a.prepare(&o, c.Profile, false); err != nil {
				return err
			}
			return a.writeFiles(&o, c)
		})
	o.flags(cmd, "pem")
	cmd.Flags().StringVar(&key.path, "key", "", "`FILE` with the private key, PEM or PKCS#12; - is standard input")
	cmd.Flags().StringVar(&key.passphrase, "passphrase-file", "",
		"`FILE` with the passphrase of --key; - is standard input")
	return cmd
}
