//go:build !noserver

package cli

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"strings"

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
	return group("root", "Roots: show them, follow one by another, take their keys off this machine",
		newCARootShow(a), newCARootList(a), newCARootStatus(a), newCARootNew(a), newCARootRetire(a),
		newCARootExport(a),
		newCARootMove(a, &cobra.Command{Use: "remove-key --key FILE", Short: "Take the root's key off this machine"},
			(*ca.Authority).RemoveRootKey, "the root's key is no longer on this machine"),
		newCARootMove(a, &cobra.Command{Use: "restore-key --key FILE", Short: "Bring the root's key back"},
			(*ca.Authority).RestoreRootKey, "the root's key is back on this machine"))
}

func newCARootShow(a *app) *cobra.Command {
	var chain bool
	cmd := &cobra.Command{Use: "show", Short: "Print the root certificate, both while one follows another"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(a.withCA, func(_ context.Context, authority *ca.Authority, _ []string) error {
		if *asJSON {
			return terminal.List(a.printer(), authority.RootInfos(), true, "", nil)
		}
		certs := authority.Roots()
		if chain {
			certs = slices.Concat(certs, authority.Trusted(ca.Server), authority.Trusted(ca.Client))
		}
		_, err := a.out.Write(ca.EncodeCertificates(certs...))
		return err
	})
	cmd.Flags().BoolVar(&chain, "chain", false, "all intermediates that are trusted, too")
	return cmd
}

func newCARootList(a *app) *cobra.Command {
	return listCommand(a, "list", "List the roots and SSH CAs", a.withCA, "CA STATUS EXPIRES CERTIFICATES NAME",
		func(ctx context.Context, authority *ca.Authority, _ []string) ([]ca.Anchor, error) {
			return authority.Anchors(ctx)
		}, func(c ca.Anchor) []string {
			return []string{c.ID, c.Status, terminal.Day(c.NotAfter), fmt.Sprint(c.Certificates), c.Name}
		})
}

func newCARootStatus(a *app) *cobra.Command {
	return listCommand(a, "status [CA]", "List who has valid certificates of an older root or SSH CA", a.withCA,
		"CA SERIAL PROFILE EXPIRES FOR",
		func(ctx context.Context, authority *ca.Authority, args []string) ([]ca.Holder, error) {
			return authority.Holders(ctx, strings.Join(args, ""))
		}, func(h ca.Holder) []string {
			return []string{h.CA, h.Serial, string(h.Profile), terminal.Day(h.NotAfter), h.For}
		})
}

func newCARootNew(a *app) *cobra.Command {
	var old keyFile
	var cfg ca.Config
	cmd := command("new", "Make the root that follows, and let both be trusted", a.withState,
		func(ctx context.Context, st *state.State, _ []string) error {
			return openCA(ctx, st, cfg, func(authority *ca.Authority) error {
				key, err := a.lentKey(old, authority)
				if err != nil {
					return err
				}
				root, err := authority.NewRoot(ctx, key)
				return a.done(err, "made the root %s, and intermediates under it that issue from now on\n", root.ID)
			})
		})
	old.rootKeyFlags(cmd, "root-key")
	cmd.Flags().StringVar(&cfg.RootKeyURI, "key", "", "pkcs11: `URI` of the HSM that makes and keeps its key")
	return cmd
}

func newCARootRetire(a *app) *cobra.Command {
	var revoke bool
	cmd := command("retire CA", "End the trust in a root or SSH CA that another has followed", a.withCA,
		func(ctx context.Context, authority *ca.Authority, args []string) error {
			err := authority.Retire(ctx, ca.RetireRequest{ID: args[0], Revoke: revoke})
			return a.done(err, "retired %s\n", args[0])
		})
	cmd.Flags().BoolVar(&revoke, "revoke-certificates", false, "revoke its valid certificates with it")
	return cmd
}

func newCARootExport(a *app) *cobra.Command {
	var root, out, passphraseFile string
	cmd := command("export-key --out FILE", "Write the root's key to a file, encrypted", a.withCA,
		func(ctx context.Context, authority *ca.Authority, _ []string) error {
			return a.rootExport(ctx, authority, root, out, passphraseFile)
		})
	cmd.Flags().StringVar(&root, "root", "", "the `ROOT`, as root-2 (default: the newest)")
	cmd.Flags().StringVarP(&out, "out", "o", "", "`FILE` for the key; - is standard output, with --passphrase-file")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "",
		"`FILE` with the passphrase; - is standard input (default: ask, or make one and print it)")
	required(cmd, "out")
	return cmd
}

func (a *app) rootExport(ctx context.Context, authority *ca.Authority, root, out, passphraseFile string) error {
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
	key, err := authority.ExportRootKey(ctx, root, []byte(passphrase))
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
		key, err := a.readKey(k, nil)
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
func (a *app) newCA(ctx context.Context, authority *ca.Authority, role ca.Role, root keyFile) error {
	key, err := a.lentKey(root, authority)
	if err != nil {
		return err
	}
	i, signs, err := authority.NewCA(ctx, role, key)
	said := ""
	if signs.After(i.Created) {
		said = fmt.Sprintf(", which signs from %s on: until then, let hosts and clients fetch what they trust",
			terminal.Day(signs))
	}
	return a.done(err, "made the CA %s%s\n", i.ID, said)
}

// lentKey reads the newest root's key from a file, nil if there is none.
func (a *app) lentKey(root keyFile, authority *ca.Authority) (crypto.Signer, error) {
	if root.path == "" {
		return nil, nil
	}
	return a.readKey(root, authority.Root())
}
