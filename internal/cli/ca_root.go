package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

// rootKeyFlags are the flags for a file with the root's key.
func (k *keyFile) rootKeyFlags(cmd *cobra.Command, name string) {
	cmd.Flags().StringVar(&k.path, name, "", "`FILE` with the root's key, as export-key wrote it")
	cmd.Flags().StringVar(&k.passphrase, "passphrase-file", "",
		"`FILE` with its passphrase; - is standard input (default: ask)")
}

func newCARoot(a *app) *cobra.Command {
	return group("root", "The root: show it, and take its key off this machine",
		newCARootShow(a), newCARootExport(a),
		newCARootMove(a, &cobra.Command{Use: "remove-key --key FILE", Short: "Take the root's key off this machine"},
			(*ca.Authority).RemoveRootKey, "the root's key is no longer on this machine"),
		newCARootMove(a, &cobra.Command{Use: "restore-key --key FILE", Short: "Bring the root's key back"},
			(*ca.Authority).RestoreRootKey, "the root's key is back on this machine"))
}

func newCARootShow(a *app) *cobra.Command {
	var chain bool
	cmd := &cobra.Command{Use: "show", Short: "Print the root certificate"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(a.withCA, func(_ context.Context, authority *ca.Authority, _ []string) error {
		if *asJSON {
			return terminal.JSON(a.out, authority.RootInfo())
		}
		certs := []*x509.Certificate{authority.Root()}
		if chain {
			certs = slices.Concat(certs, authority.Trusted(ca.Server), authority.Trusted(ca.Client))
		}
		_, err := a.out.Write(ca.EncodeCertificates(certs...))
		return err
	})
	cmd.Flags().BoolVar(&chain, "chain", false, "all intermediates that are trusted, too")
	return cmd
}

func newCARootExport(a *app) *cobra.Command {
	var out, passphraseFile string
	cmd := &cobra.Command{
		Use:   "export-key --out FILE",
		Short: "Write the root's key to a file, encrypted",
		RunE: on(a.withCA, func(ctx context.Context, authority *ca.Authority, _ []string) error {
			return a.rootExport(ctx, authority, out, passphraseFile)
		}),
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` for the key; - is standard output, with --passphrase-file")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "",
		"`FILE` with the passphrase; - is standard input (default: ask, or make one and print it)")
	required(cmd, "out")
	return cmd
}

func (a *app) rootExport(ctx context.Context, authority *ca.Authority, out, passphraseFile string) error {
	if out == "-" && passphraseFile == "" {
		return postern.Errorf(postern.Invalid, "the key and its passphrase would both go to standard output").
			WithHint("give --passphrase-file FILE, or a file for the key with --out FILE")
	}
	if err := a.secretTarget(out); err != nil {
		return err
	}
	if err := authority.RootKeyMoves(); err != nil {
		return err
	}
	passphrase, random, err := a.prompt().NewPassword(passphraseFile, "the root's key")
	if err != nil {
		return err
	}
	key, err := authority.ExportRootKey(ctx, []byte(passphrase))
	if err != nil {
		return err
	}
	if err := a.secretOut(out, key); err != nil || out == "-" {
		return err
	}
	fmt.Fprintf(a.out, "wrote      %s\n", out)
	if random {
		fmt.Fprintf(a.out, "passphrase %s (it is not shown again)\n", passphrase)
	}
	return nil
}

// newCARootMove makes cmd take the root's key away, or bring it back.
func newCARootMove(
	a *app, cmd *cobra.Command, move func(*ca.Authority, context.Context, crypto.Signer) error, done string,
) *cobra.Command {
	var k keyFile
	cmd.RunE = on(a.withCA, func(ctx context.Context, authority *ca.Authority, _ []string) error {
		if err := authority.RootKeyMoves(); err != nil {
			return err
		}
		key, err := a.readKey(k, authority.Root())
		if err != nil {
			return err
		}
		return a.done(move(authority, ctx, key), "%s\n", done)
	})
	k.rootKeyFlags(cmd, "key")
	required(cmd, "key")
	return cmd
}

func newCAIntermediate(a *app) *cobra.Command {
	var root keyFile
	var cfg ca.Config
	cmd := &cobra.Command{
		Use:   "new (server|client|ssh-user|ssh-host)",
		Short: "Make the next intermediate or SSH CA",
		Args:  cobra.ExactArgs(1),
		RunE: on(a.withState, func(ctx context.Context, st *state.State, args []string) error {
			return openCA(ctx, st, cfg, func(authority *ca.Authority) error {
				return a.newCA(ctx, authority, ca.Role(args[0]), root)
			})
		}),
	}
	root.rootKeyFlags(cmd, "root-key")
	cmd.Flags().StringVar(&cfg.KeyURI, "key", "", "pkcs11: `URI` of the HSM that makes and keeps its key")
	return group("intermediate", "Intermediates: make the next one", cmd)
}

// newCA makes the next CA of a role.
func (a *app) newCA(ctx context.Context, authority *ca.Authority, role ca.Role, root keyFile) (err error) {
	var key crypto.Signer
	if root.path != "" {
		if key, err = a.readKey(root, authority.Root()); err != nil {
			return err
		}
	}
	i, signs, err := authority.NewCA(ctx, role, key)
	said := ""
	if signs.After(i.Created) {
		said = fmt.Sprintf(", which signs from %s on: until then, let hosts and clients fetch what they trust",
			terminal.Day(signs))
	}
	return a.done(err, "made the CA %s%s\n", i.ID, said)
}
