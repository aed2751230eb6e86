//go:build !noserver

package cli

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/postern-project/postern/internal/state"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

func newUserAddKey(a *app) *cobra.Command {
	k := sign.EnrolledKey{}
	cmd := &cobra.Command{
		Use:   "add-key NAME FILE",
		Short: "Keep a person's SSH key, without an attestation",
		RunE: on(a.withState, func(ctx context.Context, st *state.State, args []string) (err error) {
			k.Person = args[0]
			if k.Public, err = client.ReadPublicKey(args[1]); err != nil {
				return err
			}
			err = server.EnrolSSHKey(ctx, st, postern.Actor{}, k)
			return a.done(err, "%s has the key %s\n", k.Person, ssh.FingerprintSHA256(k.Public))
		}),
	}
	cmd.Flags().StringVar(&k.Label, "label", "", "`WORDS` for it, which the person sees")
	return cmd
}
