package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// outputOptions say how a certificate is written to files.
type outputOptions struct {
	ca.Output
	layouts      []string
	passwordFile string
	random       bool // the password was made here
}

func (o *outputOptions) flags(cmd *cobra.Command, layouts string) {
	f := cmd.Flags()
	f.StringVarP(&o.Dir, "out", "o", ".", "`DIRECTORY` for the files")
	f.StringSliceVar(&o.layouts, "layout", nil,
		"`LAYOUT` of the files: apache, nginx, haproxy, libvirt, postgresql, pem, pkcs12 (default "+layouts+")")
	f.BoolVar(&o.Force, "force", false, "replace files that exist")
	f.BoolVar(&o.Legacy, "legacy", false, "write PKCS#12 with the old encryption that old importers need")
	f.StringVar(&o.passwordFile, "password-file", "",
		"`FILE` with the password for PKCS#12; - is standard input (default: ask, or make one and print it)")
}

// prepare checks the options, and asks for a password if one is needed.
func (a *app) prepare(o *outputOptions, fallback ...ca.Layout) (err error) {
	if o.Layouts, err = ca.ParseLayouts(o.layouts, fallback...); err != nil {
		return err
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return postern.Errorf(postern.Invalid, "--out: %w", err)
	}
	if o.NeedsPassword() {
		o.Password, o.random, err = a.prompt().NewPassword(o.passwordFile, "the PKCS#12 file")
	}
	return err
}

// writeFiles writes a certificate, and says where, and what the password is if
// no other process has it yet.
func (a *app) writeFiles(o *outputOptions, i *ca.Issued, key crypto.PrivateKey) error {
	files, err := o.Write(i, key)
	for _, f := range files {
		fmt.Fprintf(a.out, "wrote    %s\n", f)
	}
	if err == nil && o.random {
		fmt.Fprintf(a.out, "password %s (of the PKCS#12 file; it is not shown again)\n", o.Password)
	}
	return err
}

// issueOptions are the flags of ca issue.
type issueOptions struct {
	outputOptions
	server   []string
	client   string
	label    string
	units    []string
	validity terminal.Duration
	profile  string
	keyType  string
}

func newCAIssue(a *app) *cobra.Command {
	var o issueOptions
	cmd := &cobra.Command{
		Use:   "issue (--server NAME... | --client PERSON)",
		Short: "Make a key and a certificate for it",
		Long: `Make a private key and a certificate for it, and write both to files. The key is
not kept: who loses it, or its password, gets a new one.

A server certificate carries DNS names, wildcards and IP addresses. A client
certificate carries the person's name and e-mail address, and becomes one of the
things that they can sign in with.`,
		Example: `  postern ca issue --server www.example.com example.com '*.api.example.com' 192.0.2.1
  postern ca issue --server www.example.com --layout apache --out /etc/ssl/postern
  postern ca issue --client dan --label laptop
  postern ca issue --client dan --layout pkcs12 --legacy --password-file pw.txt`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.caIssue(cmd.Context(), &o, args) },
	}
	o.flags(cmd, "pem for servers, pkcs12 and pem for persons")
	f := cmd.Flags()
	f.StringSliceVar(&o.server, "server", nil, "`NAME` of the server; more may follow")
	f.StringVar(&o.client, "client", "", "`PERSON` that the certificate is for")
	f.StringVar(&o.label, "label", "", "the person's own `NAME` for where it is used")
	f.StringSliceVar(&o.units, "unit", nil, "organisational `UNIT` (OU) in a client's subject")
	f.Var(&o.validity, "validity", "how long it is valid, a `DURATION` such as 90d (default: the profile's)")
	profileFlag(cmd, &o.profile)
	cmd.MarkFlagsMutuallyExclusive("client", "profile")
	f.StringVar(&o.keyType, "key-type", "",
		"`TYPE` of the key: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096 (default: the profile's first; rsa-3072 for "+
			"libvirt, which may refuse others)")
	return cmd
}

// profileFlag adds the flag for a server's profile.
func profileFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "profile", string(ca.ProfileServer),
		"`PROFILE` of a server's certificate; postern ca profile list shows them")
}

func (a *app) caIssue(ctx context.Context, o *issueOptions, args []string) error {
	if (len(o.server) > 0) == (o.client != "") {
		return postern.Errorf(postern.Invalid, "say what it is for: --server NAME..., or --client PERSON").
			WithHint("see postern ca issue --help")
	}
	kind, fallback, names := ca.ProfileServer, serverLayouts, append(o.server, args...)
	if o.client != "" {
		kind, fallback, names = ca.ProfileClient, clientLayouts, nil
		o.profile = string(kind)
		if len(args) > 0 {
			return postern.Errorf(postern.Invalid, "a client certificate is for one person, %q is too much", args[0])
		}
	}
	if err := a.prepare(&o.outputOptions, fallback...); err != nil {
		return err
	}
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		key, err := authority.NewKey(ca.Profile(o.profile), ca.Algorithm(o.keyType), o.Layouts)
		if err != nil {
			return err
		}
		if err := o.Check(authority, kind, o.client, names); err != nil {
			return err
		}
		issued, err := o.issue(ctx, authority, key, names)
		if err != nil {
			return err
		}
		if err := a.describe(issued.Certificate); err != nil {
			return err
		}
		return a.writeFiles(&o.outputOptions, issued, key)
	})
}

// The layouts of certificates where none is asked for.
var (
	serverLayouts = []ca.Layout{ca.LayoutPEM}
	clientLayouts = []ca.Layout{ca.LayoutPKCS12, ca.LayoutPEM}
)

func (o *issueOptions) issue(ctx context.Context, authority *ca.Authority, key crypto.Signer,
	names []string,
) (*ca.Issued, error) {
	period := ca.Period{Validity: time.Duration(o.validity)}
	if o.client == "" {
		return authority.IssueServer(ctx, ca.ServerRequest{
			Names: names, Profile: ca.Profile(o.profile),
			Key: key.Public(), Period: period,
		})
	}
	return authority.IssueClient(ctx, ca.ClientRequest{
		Person: o.client, Label: o.label, Units: o.units, Key: key.Public(), Period: period,
	})
}

// signOptions are the flags of ca sign.
type signOptions struct {
	request  ca.SignRequest
	csr, out string
	validity terminal.Duration
	force    bool
}

func newCASign(a *app) *cobra.Command {
	var o signOptions
	cmd := &cobra.Command{
		Use:   "sign --csr FILE [--client PERSON]",
		Short: "Certify the key of a certificate request",
		Long: `Certify the key of a certificate request (PKCS#10, PEM or DER), so that the
private key stays where it was made. The certificate, followed by its chain, is
printed or written to a file.

A server gets the names that the request asks for. With --name it gets those
names and no others, whatever an appliance wrote into its request. With --client
nothing but the request's key is used either: the identity is the person's.`,
		Example: `  postern ca sign --csr www.csr > www.pem
  postern ca sign --csr ilo.csr --name ilo.example.com --out ilo.pem
  postern ca sign --csr phone.csr --client dan --label phone --out phone.pem`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.caSign(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.csr, "csr", "", "`FILE` with the request; - is standard input")
	f.StringVar(&o.request.Person, "client", "", "make it the client certificate of this `PERSON`")
	f.StringVar(&o.request.Label, "label", "", "the person's own `NAME` for where it is used")
	f.StringSliceVar(&o.request.Names, "name", nil,
		"certify this `NAME`, in place of those in the request; can be repeated")
	f.StringSliceVar(&o.request.Units, "unit", nil, "organisational `UNIT` (OU) in a client's subject")
	f.Var(&o.validity, "validity", "how long it is valid, a `DURATION` such as 90d (default: the profile's)")
	profileFlag(cmd, (*string)(&o.request.Profile))
	cmd.MarkFlagsMutuallyExclusive("client", "profile")
	f.StringVarP(&o.out, "out", "o", "", "`FILE` for the certificate and its chain; - is standard output, the default")
	f.BoolVar(&o.force, "force", false, "replace the file if it exists")
	return cmd
}

func (a *app) caSign(ctx context.Context, o *signOptions) error {
	if o.csr == "" {
		return postern.Errorf(postern.Invalid, "no certificate request given").WithHint("postern ca sign --csr FILE")
	}
	csr, err := a.readInput(o.csr)
	if err != nil {
		return err
	}
	o.request.Validity = time.Duration(o.validity)
	if o.request.Person != "" {
		o.request.Profile = ca.ProfileClient
	}
	if !o.force {
		if err := checkNew(o.out); err != nil {
			return err
		}
	}
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		issued, err := authority.IssueCSR(ctx, csr, o.request)
		if err != nil {
			return err
		}
		return a.print(o.out, issued.PEM())
	})
}

// renewOptions are the flags of ca renew.
type renewOptions struct {
	outputOptions
	csr      string
	sameKey  bool
	validity terminal.Duration
	profile  string
}

func newCARenew(a *app) *cobra.Command {
	var o renewOptions
	cmd := &cobra.Command{
		Use:   "renew SERIAL",
		Short: "Issue the successor of a certificate",
		Long: `Issue a certificate for the names, or the person, of an older one. It is for a new
key, unless --csr brings one or --same-key keeps the old one. The older
certificate stays valid until it expires or is revoked.

What was revoked with the intermediate that had issued it is renewed, too: for a
new key, under the intermediate that issues now.`,
		Example: `  postern ca renew 5f3a… --layout apache --out /etc/ssl/postern --force
  postern ca renew 5f3a… --same-key --out www`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.caRenew(cmd.Context(), &o, args[0]) },
	}
	o.flags(cmd, "pem for servers, pkcs12 and pem for persons")
	cmd.Flags().StringVar(&o.csr, "csr", "", "`FILE` with a request whose key is certified; - is standard input")
	cmd.Flags().BoolVar(&o.sameKey, "same-key", false, "certify the old key again")
	cmd.Flags().Var(&o.validity, "validity", "how long it is valid, a `DURATION` such as 90d (default: the profile's)")
	cmd.Flags().StringVar(&o.profile, "profile", "",
		"`PROFILE` of a server's certificate; postern ca profile list shows them (default server)")
	cmd.MarkFlagsMutuallyExclusive("csr", "same-key")
	return cmd
}

func (a *app) caRenew(ctx context.Context, o *renewOptions, arg string) error {
	serial, err := ca.ParseSerial(arg)
	if err != nil {
		return err
	}
	request := ca.RenewRequest{
		SameKey: o.sameKey, Profile: ca.Profile(o.profile),
		Period: ca.Period{Validity: time.Duration(o.validity)},
	}
	if o.csr != "" {
		if request.Key, err = a.requestedKey(o.csr); err != nil {
			return err
		}
	}
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		old, err := authority.Load(ctx, serial)
		if err != nil {
			return err
		}
		fallback := serverLayouts
		if old.Profile == ca.ProfileClient && !o.sameKey && o.csr == "" {
			fallback = clientLayouts
		}
		if err := a.prepare(&o.outputOptions, fallback...); err != nil {
			return err
		}
		if err := o.Check(authority, old.Profile, old.Person, old.Names); err != nil {
			return err
		}
		issued, err := authority.Renew(ctx, serial, request)
		if err != nil {
			return err
		}
		if err := a.describe(issued.Certificate); err != nil {
			return err
		}
		return a.writeFiles(&o.outputOptions, issued, issued.Key)
	})
}

// requestedKey returns the key of a certificate request.
func (a *app) requestedKey(file string) (crypto.PublicKey, error) {
	data, err := a.readInput(file)
	if err != nil {
		return nil, err
	}
	return ca.CSRKey(data)
}

// keyFile names a file with a private key, and the one with its passphrase.
type keyFile struct{ path, passphrase string }

// readKey reads a private key, in PEM or PKCS#12. If cert is not nil, it has to be
// that certificate's.
func (a *app) readKey(k keyFile, cert *x509.Certificate) (crypto.Signer, error) {
	data, err := a.readInput(k.path)
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
	cmd := &cobra.Command{
		Use:   "export SERIAL --layout LAYOUT",
		Short: "Write a certificate as another program wants it",
		Long: `Write a certificate that was issued, its chain, the root, and a piece of
configuration, as the program named by --layout wants them. The authority does not
keep private keys: --key names the file that has it (PEM, or a PKCS#12 file);
without one, the key's file is left out.`,
		Example: `  postern ca export 5f3a… --layout nginx --key www.key --out /etc/nginx/postern
  postern ca export 5f3a… --layout pkcs12 --key dan.key --legacy`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.caExport(cmd.Context(), &o, key, args[0]) },
	}
	o.flags(cmd, "pem")
	cmd.Flags().StringVar(&key.path, "key", "", "`FILE` with the private key, PEM or PKCS#12; - is standard input")
	cmd.Flags().StringVar(&key.passphrase, "passphrase-file", "",
		"`FILE` with the passphrase of --key; - is standard input")
	return cmd
}

func (a *app) caExport(ctx context.Context, o *outputOptions, k keyFile, arg string) error {
	serial, err := ca.ParseSerial(arg)
	if err != nil {
		return err
	}
	return a.withCA(ctx, func(_ *state.State, authority *ca.Authority) error {
		issued, err := authority.Load(ctx, serial)
		if err != nil {
			return err
		}
		var key crypto.PrivateKey
		if k.path != "" {
			if key, err = a.readKey(k, issued.Leaf); err != nil {
				return err
			}
		}
		if err := a.prepare(o, ca.LayoutPEM); err != nil {
			return err
		}
		return a.writeFiles(o, issued, key)
	})
}
