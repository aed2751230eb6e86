package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// keyFileOptions name a file with the root's key and its passphrase.
type keyFileOptions struct{ key, passphraseFile string }

func (o *keyFileOptions) flags(cmd *cobra.Command, name string) {
	cmd.Flags().StringVar(&o.key, name, "", "`FILE` with the root's key, as export-key wrote it")
	cmd.Flags().StringVar(&o.passphraseFile, "passphrase-file", "", "`FILE` with its passphrase; - is standard input (default: ask)")
}

func newCARoot(a *app) *cobra.Command {
	return group("root", "The root: show it, and take its key off this machine",
		newCARootShow(a), newCARootExport(a), newCARootRemove(a), newCARootRestore(a))
}

// rootJSON is the root as it is printed.
type rootJSON struct {
	Subject  string    `json:"subject"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	Key      bool      `json:"key_here"`
	KeyURI   string    `json:"key_uri,omitempty"` // of the device that it is in
	URL      string    `json:"url,omitempty"`
	PEM      string    `json:"pem"`
}

func newCARootShow(a *app) *cobra.Command {
	var asJSON, chain bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the root certificate",
		Long:  "Print the root certificate in PEM: what a browser or system is told to trust.",
		Example: `  postern ca root show > root.pem
  postern ca root show --chain > all.pem`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, authority, err := a.openCA(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			return a.rootShow(authority, asJSON, chain)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&chain, "chain", false, "all intermediates that count, too")
	return cmd
}

func (a *app) rootShow(authority *ca.Authority, asJSON, chain bool) error {
	root := authority.Root()
	if asJSON {
		return terminal.JSON(a.out, rootJSON{
			Subject: ca.SubjectString(root.RawSubject), Serial: ca.SerialString(root.SerialNumber), NotAfter: root.NotAfter,
			Key: authority.HasKey(string(ca.Root)), KeyURI: authority.Issuers()[0].KeyURI, URL: authority.URL(), PEM: string(ca.EncodeCertificates(root)),
		})
	}
	certs := []*x509.Certificate{root}
	if chain {
		certs = slices.Concat(certs, authority.Trusted(ca.Server), authority.Trusted(ca.Client))
	}
	_, err := a.out.Write(ca.EncodeCertificates(certs...))
	return err
}

func newCARootExport(a *app) *cobra.Command {
	var out, passphraseFile string
	cmd := &cobra.Command{
		Use:   "export-key --out FILE",
		Short: "Write the root's key to a file, encrypted",
		Long: `Write the root's private key to a file, encrypted under a passphrase (PKCS#8), to be
kept off this machine. It stays here as well until remove-key.`,
		Example: "  postern ca root export-key --out /media/usb/root.key",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.rootExport(cmd.Context(), out, passphraseFile)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` for the key")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "`FILE` with the passphrase; - is standard input (default: ask, or make one and print it)")
	return cmd
}

func (a *app) rootExport(ctx context.Context, out, passphraseFile string) error {
	if out == "" {
		return postern.Errorf(postern.Invalid, "no file given for the key").WithHint("postern ca root export-key --out FILE")
	}
	if err := checkOutput(out, false); err != nil {
		return err
	}
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := authority.RootKeyMoves(); err != nil {
		return err
	}
	passphrase, made, err := a.newPassword(passphraseFile, "the root's key")
	if err != nil {
		return err
	}
	data, err := authority.ExportRootKey(ctx, []byte(passphrase))
	if err != nil {
		return err
	}
	if err := a.writeOutput(out, data, 0o600, false); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "wrote      %s\n", out)
	if made {
		fmt.Fprintf(a.out, "passphrase %s (it is not shown again)\n", passphrase)
	}
	return nil
}

func newCARootRemove(a *app) *cobra.Command {
	var o keyFileOptions
	cmd := &cobra.Command{
		Use:   "remove-key --key FILE",
		Short: "Take the root's key off this machine",
		Long: `Take the root's private key off this machine, after a look that the exported file
opens. Everything but making and revoking intermediates goes on working.

With SQLite the removed key may linger in free pages and backups, still encrypted
under the state's own key.`,
		Example: "  postern ca root remove-key --key /media/usb/root.key",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRootKey(cmd.Context(), o, func(authority *ca.Authority, key crypto.Signer) error {
				if err := authority.RemoveRootKey(cmd.Context(), key); err != nil {
					return err
				}
				fmt.Fprintln(a.out, "the root's key is no longer on this machine")
				return nil
			})
		},
	}
	o.flags(cmd, "key")
	return cmd
}

func newCARootRestore(a *app) *cobra.Command {
	var o keyFileOptions
	cmd := &cobra.Command{
		Use:     "restore-key --key FILE",
		Short:   "Bring the root's key back",
		Long:    "Bring the root's private key back to this machine, from the file that export-key wrote.",
		Example: "  postern ca root restore-key --key /media/usb/root.key",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRootKey(cmd.Context(), o, func(authority *ca.Authority, key crypto.Signer) error {
				if err := authority.RestoreRootKey(cmd.Context(), key); err != nil {
					return err
				}
				fmt.Fprintln(a.out, "the root's key is back on this machine")
				return nil
			})
		},
	}
	o.flags(cmd, "key")
	return cmd
}

// withRootKey reads the root's key from its file and calls f.
func (a *app) withRootKey(ctx context.Context, o keyFileOptions, f func(*ca.Authority, crypto.Signer) error) error {
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	if err := authority.RootKeyMoves(); err != nil {
		return err
	}
	if o.key == "" {
		return postern.Errorf(postern.Invalid, "no file with the root's key given").WithHint("postern ca root export-key --out FILE makes one")
	}
	key, err := a.readKey(o.key, o.passphraseFile, authority.Root())
	if err != nil {
		return err
	}
	return f(authority, key)
}

func newCAIntermediate(a *app) *cobra.Command {
	var o keyFileOptions
	cfg := ca.Config{Keys: deviceKeys()}
	cmd := &cobra.Command{
		Use:   "new (server|client)",
		Short: "Make the next intermediate",
		Long: `Make an intermediate that issues from now on; those before it go on answering for what
they issued. If the root's key is not on this machine, it is lent for this once.
Servers that run take it up within a second.

Its key is made where the one before it is: in the state directory, or in the same
device. With --key it is made in the device of that PKCS#11 URI, as in postern init, or
taken if the URI names a key; --key state is the state directory.`,
		Example: `  postern ca intermediate new server --root-key /media/usb/root.key
  postern ca intermediate new client --key 'pkcs11:token=postern?pin-source=/etc/postern/pin'`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.intermediateNew(cmd.Context(), cfg, o, ca.Role(args[0]))
		},
	}
	o.flags(cmd, "root-key")
	cmd.Flags().StringVar(&cfg.KeyURI, "key", "", "pkcs11: `URI` of the device that makes and keeps its key")
	return group("intermediate", "Intermediates: make the next one", cmd)
}

func (a *app) intermediateNew(ctx context.Context, cfg ca.Config, o keyFileOptions, role ca.Role) error {
	st, authority, err := a.openCAWith(ctx, cfg)
	if err != nil {
		return err
	}
	defer st.Close()
	var key crypto.Signer
	if o.key != "" {
		if key, err = a.readKey(o.key, o.passphraseFile, authority.Root()); err != nil {
			return err
		}
	}
	i, err := authority.NewIntermediate(ctx, role, key)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "made the CA %s\n", i.ID)
	return nil
}
