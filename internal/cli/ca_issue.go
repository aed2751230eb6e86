package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/spf13/cobra"
)

// outputOptions say how a certificate is written to files.
type outputOptions struct {
	out          string
	layouts      []string
	force        bool
	legacy       bool
	passwordFile string
}

func (o *outputOptions) flags(cmd *cobra.Command, layouts string) {
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", ".", "`DIRECTORY` for the files")
	f.StringSliceVar(&o.layouts, "layout", nil, "`LAYOUT` of the files: apache, nginx, haproxy, libvirt, postgresql, pem, pkcs12 (default "+layouts+")")
	f.BoolVar(&o.force, "force", false, "replace files that exist")
	f.BoolVar(&o.legacy, "legacy", false, "write PKCS#12 with the old encryption that old importers need")
	f.StringVar(&o.passwordFile, "password-file", "", "`FILE` with the password for PKCS#12; - is standard input (default: ask, or make one and print it)")
}

// exporter writes certificates as its options say.
type exporter struct {
	*app
	opts     *outputOptions
	dir      string
	layouts  []ca.Layout
	password string
	made     bool // the password was made here
}

// exporter checks the options, before anything is issued.
func (a *app) exporter(o *outputOptions, fallback ...ca.Layout) (*exporter, error) {
	e := &exporter{app: a, opts: o, layouts: fallback}
	if o.layouts != nil {
		e.layouts = nil
	}
	for _, s := range o.layouts {
		l, err := ca.ParseLayout(s)
		if err != nil {
			return nil, err
		}
		e.layouts = append(e.layouts, l)
	}
	dir, err := filepath.Abs(o.out)
	if err != nil {
		return nil, postern.Errorf(postern.Invalid, "--out %s: %w", o.out, err)
	}
	e.dir = dir
	for _, l := range e.layouts {
		if l != ca.LayoutPKCS12 {
			continue
		}
		if e.password, e.made, err = a.newPassword(o.passwordFile, "the PKCS#12 file"); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// check fails if the files of a certificate to be issued cannot be written.
func (e *exporter) check(authority *ca.Authority, p ca.Profile, person string, names []string) error {
	for _, l := range e.layouts {
		files, err := authority.Planned(l, p, person, names)
		if err != nil {
			return err
		}
		if err := ca.CheckFiles(e.dir, files, e.opts.force); err != nil {
			return err
		}
	}
	return nil
}

// write writes the files and says which, and what the password is if nobody
// knows it yet.
func (e *exporter) write(out *ca.Issued, key crypto.PrivateKey) error {
	for _, l := range e.layouts {
		b := ca.Bundle{Issued: out, Key: key, Dir: e.dir, Password: e.password, Legacy: e.opts.legacy}
		files, err := b.Files(l)
		if err != nil {
			return err
		}
		if err := ca.WriteFiles(e.dir, files, e.opts.force); err != nil {
			return err
		}
		for _, f := range files {
			fmt.Fprintf(e.out, "wrote    %s\n", filepath.Join(e.dir, f.Name))
		}
	}
	if e.made {
		fmt.Fprintf(e.out, "password %s (of the PKCS#12 file; it is not shown again)\n", e.password)
	}
	return nil
}

// issueOptions are the flags of ca issue.
type issueOptions struct {
	outputOptions
	server   []string
	client   string
	label    string
	units    []string
	validity validityFlag
	keyType  string
}

// algorithm returns the kind of key to make.
func (o *issueOptions) algorithm() ca.Algorithm {
	switch {
	case o.keyType != "":
		return ca.Algorithm(o.keyType)
	case slices.Contains(o.layouts, string(ca.LayoutLibvirt)):
		return ca.RSA3072
	}
	return ca.P256
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
things that they can come in with.`,
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
	f.Var(&o.validity, "validity", "how long it is valid, a `DURATION` such as 90d (default: the authority's)")
	f.StringVar(&o.keyType, "key-type", "", "`TYPE` of the key: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096 (default ecdsa-p256; rsa-3072 for libvirt, which may refuse others)")
	return cmd
}

func (a *app) caIssue(ctx context.Context, o *issueOptions, args []string) error {
	if (len(o.server) > 0) == (o.client != "") {
		return postern.Errorf(postern.Invalid, "say what it is for: --server NAME..., or --client PERSON").WithHint("see postern ca issue --help")
	}
	if o.client != "" && len(args) > 0 {
		return postern.Errorf(postern.Invalid, "a client certificate is for one person, %q is too much", args[0])
	}
	key, err := ca.GenerateKey(o.algorithm())
	if err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if o.client != "" {
		return a.issueClient(ctx, authority, o, key)
	}
	names := append(o.server[:len(o.server):len(o.server)], args...)
	e, err := a.exporter(&o.outputOptions, ca.LayoutPEM)
	if err != nil {
		return err
	}
	if err := e.check(authority, ca.ProfileServer, "", names); err != nil {
		return err
	}
	out, err := authority.IssueServer(ctx, ca.ServerRequest{Names: names, Key: key.Public(), Period: ca.Period{Validity: time.Duration(o.validity)}})
	if err != nil {
		return err
	}
	if err := a.describe(out.Certificate); err != nil {
		return err
	}
	return e.write(out, key)
}

func (a *app) issueClient(ctx context.Context, authority *ca.Authority, o *issueOptions, key crypto.Signer) error {
	e, err := a.exporter(&o.outputOptions, ca.LayoutPKCS12, ca.LayoutPEM)
	if err != nil {
		return err
	}
	if err := e.check(authority, ca.ProfileClient, o.client, nil); err != nil {
		return err
	}
	out, err := authority.IssueClient(ctx, ca.ClientRequest{Person: o.client, Label: o.label, Units: o.units, Key: key.Public(), Period: ca.Period{Validity: time.Duration(o.validity)}})
	if err != nil {
		return err
	}
	if err := a.describe(out.Certificate); err != nil {
		return err
	}
	return e.write(out, key)
}

// signOptions are the flags of ca sign.
type signOptions struct {
	csr, client, label, out string
	names, units            []string
	validity                validityFlag
	force                   bool
}

func newCASign(a *app) *cobra.Command {
	var o signOptions
	cmd := &cobra.Command{
		Use:   "sign --csr FILE [--client PERSON]",
		Short: "Certify the key of a certificate request",
		Long: `Certify the key of a certificate request (PKCS#10, PEM or DER), so that the
private key stays where it was made. The certificate, followed by its chain, is
printed or written to a file.

A server gets the names that the request asks for, or those of --name. With
--client the request's key alone counts: the identity is the person's.`,
		Example: `  postern ca sign --csr www.csr > www.pem
  postern ca sign --csr phone.csr --client dan --label phone --out phone.pem`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.caSign(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.csr, "csr", "", "`FILE` with the request; - is standard input")
	f.StringVar(&o.client, "client", "", "make it the client certificate of this `PERSON`")
	f.StringVar(&o.label, "label", "", "the person's own `NAME` for where it is used")
	f.StringSliceVar(&o.names, "name", nil, "certify this `NAME`; can be repeated")
	f.StringSliceVar(&o.units, "unit", nil, "organisational `UNIT` (OU) in a client's subject")
	f.Var(&o.validity, "validity", "how long it is valid, a `DURATION` such as 90d (default: the authority's)")
	f.StringVarP(&o.out, "out", "o", "", "`FILE` for the certificate and its chain (default: standard output)")
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
	r := ca.SignRequest{Profile: ca.ProfileServer, Names: o.names, Person: o.client, Label: o.label, Units: o.units, Period: ca.Period{Validity: time.Duration(o.validity)}}
	if o.client != "" {
		r.Profile = ca.ProfileClient
	}
	if err := checkOutput(o.out, o.force); err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	out, err := authority.IssueCSR(ctx, csr, r)
	if err != nil {
		return err
	}
	return a.writeOutput(o.out, out.PEM(), 0o644, o.force)
}

// maxInput bounds a file that a command reads whole.
const maxInput = 1 << 20

// readInput reads a file; "-" is standard input.
func (a *app) readInput(path string) ([]byte, error) {
	if path == "-" {
		return readAll(a.in)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, postern.Errorf(postern.NotFound, "%w", err)
	}
	defer f.Close()
	return readAll(f)
}

// checkOutput fails if a file of that name is in the way.
func checkOutput(path string, force bool) error {
	if path == "" || path == "-" {
		return nil
	}
	return ca.CheckFiles(filepath.Dir(path), []ca.File{{Name: filepath.Base(path)}}, force)
}

// writeOutput writes to a file; to standard output if there is none, or it is "-".
func (a *app) writeOutput(path string, data []byte, mode os.FileMode, force bool) error {
	if path == "" || path == "-" {
		_, err := a.out.Write(data)
		return err
	}
	return ca.WriteFiles(filepath.Dir(path), []ca.File{{Name: filepath.Base(path), Data: data, Mode: mode}}, force)
}

// renewOptions are the flags of ca renew.
type renewOptions struct {
	outputOptions
	csr      string
	sameKey  bool
	validity validityFlag
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
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.caRenew(cmd.Context(), &o, args[0]) },
	}
	o.flags(cmd, "pem for servers, pkcs12 and pem for persons")
	cmd.Flags().StringVar(&o.csr, "csr", "", "`FILE` with a request whose key is certified; - is standard input")
	cmd.Flags().BoolVar(&o.sameKey, "same-key", false, "certify the old key again")
	cmd.Flags().Var(&o.validity, "validity", "how long it is valid, a `DURATION` such as 90d (default: the authority's)")
	cmd.MarkFlagsMutuallyExclusive("csr", "same-key")
	return cmd
}

// renewRequest says for which key the successor is.
func (a *app) renewRequest(o *renewOptions) (ca.RenewRequest, error) {
	r := ca.RenewRequest{SameKey: o.sameKey, Period: ca.Period{Validity: time.Duration(o.validity)}}
	if o.csr == "" {
		return r, nil
	}
	data, err := a.readInput(o.csr)
	if err != nil {
		return r, err
	}
	csr, err := ca.ParseCSR(data)
	if err != nil {
		return r, err
	}
	r.Key = csr.PublicKey
	return r, nil
}

func (a *app) caRenew(ctx context.Context, o *renewOptions, arg string) error {
	serial, err := serialArg(arg)
	if err != nil {
		return err
	}
	r, err := a.renewRequest(o)
	if err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	old, err := authority.Load(ctx, serial)
	if err != nil {
		return err
	}
	fallback := []ca.Layout{ca.LayoutPEM}
	if old.Profile == ca.ProfileClient && !o.sameKey && o.csr == "" {
		fallback = []ca.Layout{ca.LayoutPKCS12, ca.LayoutPEM}
	}
	e, err := a.exporter(&o.outputOptions, fallback...)
	if err != nil {
		return err
	}
	if err := e.check(authority, old.Profile, old.Person, old.Names); err != nil {
		return err
	}
	out, err := authority.Renew(ctx, serial, r)
	if err != nil {
		return err
	}
	if err := a.describe(out.Certificate); err != nil {
		return err
	}
	return e.write(out, out.Key)
}

// exportOptions are the flags of ca export.
type exportOptions struct {
	outputOptions
	key            string
	passphraseFile string
}

func newCAExport(a *app) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export SERIAL --layout LAYOUT",
		Short: "Write a certificate as another program wants it",
		Long: `Write a certificate that was issued, its chain, the root, and a piece of
configuration, as the program named by --layout wants them. The authority does not
keep private keys: --key names the file that has it (PEM, or a PKCS#12 file);
without one, the key's file is left out.`,
		Example: `  postern ca export 5f3a… --layout nginx --key www.key --out /etc/nginx/postern
  postern ca export 5f3a… --layout pkcs12 --key dan.key --legacy`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return a.caExport(cmd.Context(), &o, args[0]) },
	}
	o.flags(cmd, "pem")
	cmd.Flags().StringVar(&o.key, "key", "", "`FILE` with the private key, PEM or PKCS#12")
	cmd.Flags().StringVar(&o.passphraseFile, "passphrase-file", "", "`FILE` with the passphrase of --key; - is standard input")
	return cmd
}

func (a *app) caExport(ctx context.Context, o *exportOptions, arg string) error {
	serial, err := serialArg(arg)
	if err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	out, err := authority.Load(ctx, serial)
	if err != nil {
		return err
	}
	var key crypto.PrivateKey
	if o.key != "" {
		if key, err = a.readKey(o.key, o.passphraseFile, out.Leaf); err != nil {
			return err
		}
	}
	e, err := a.exporter(&o.outputOptions, ca.LayoutPEM)
	if err != nil {
		return err
	}
	return e.write(out, key)
}

// readKey reads a private key, in PEM or PKCS#12. If cert is given, the key has
// to be that certificate's.
func (a *app) readKey(path, passphraseFile string, cert *x509.Certificate) (crypto.Signer, error) {
	data, err := a.readInput(path)
	if err != nil {
		return nil, err
	}
	var passphrase []byte
	packed := len(data) > 0 && data[0] == 0x30
	if packed || strings.Contains(string(data), "BEGIN ENCRYPTED PRIVATE KEY") {
		if passphrase, err = a.password(passphraseFile, path); err != nil {
			return nil, err
		}
	}
	var key crypto.Signer
	if packed {
		key, _, _, err = ca.ParsePKCS12(data, string(passphrase))
	} else {
		key, err = ca.ParseKey(data, passphrase)
	}
	if err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "%s: %w", path, err)
	}
	if cert != nil {
		pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !pub.Equal(cert.PublicKey) {
			return nil, postern.Errorf(postern.Invalid, "%s holds another certificate's key", path)
		}
	}
	return key, nil
}
