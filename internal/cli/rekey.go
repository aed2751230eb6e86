//go:build !noserver

package cli

import (
	"context"

	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newRekey(a *app) *cobra.Command {
	var o state.RekeyOptions
	var passphrase string
	cmd := command("rekey", "Seal all secrets again under a new key-encrypting key", a.withDir,
		func(ctx context.Context, dir string, _ []string) (err error) {
			if passphrase != "" {
				if o.Passphrase, err = state.ReadPassphrase(passphrase); err != nil {
					return err
				}
			}
			end := terminal.Working(a.err, "sealing secrets again")
			done, err := state.Rekey(ctx, dir, o)
			end()
			return a.rekeyed(done, err)
		})
	cmd.Flags().BoolVar(&o.OthersKnow, "others-know", false,
		"the other servers of this database have kek.next and were reloaded")
	cmd.Flags().StringVar(&passphrase, "new-passphrase-file", "",
		"the `FILE` with the new passphrase, where the key comes from one")
	return cmd
}

// rekeyed says what was done, and what is to be done next.
func (a *app) rekeyed(done state.Rekeyed, err error) error {
	switch {
	case done.Servers:
		return a.done(err, `The new key is %s.
Copy it into the state directory of every other server of this database, run "postern run --reload" there,
and then here: postern rekey --others-know
`, done.Next)
	case done.Next != "":
		return a.done(err, `sealed %s again; the new key is %s
Make it the credential postern-kek, restart the server, and finish: postern rekey
`, terminal.Counted(done.Sealed, "secret"), done.Next)
	}
	return a.done(err, "sealed %s again; the new key is %s\n", terminal.Counted(done.Sealed, "secret"), done.Key)
}
