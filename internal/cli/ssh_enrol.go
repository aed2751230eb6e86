package cli

import (
	"os"
	"os/exec"

	"github.com/postern-project/postern/internal/client"
	"github.com/spf13/cobra"
)

func newSSHEnrol(a *app) *cobra.Command {
	var e client.Enrol
	cmd := &cobra.Command{
		Use:   "enrol SERVER",
		Short: "Make an SSH key in your FIDO2 key, and enrol it",
		RunE: func(cmd *cobra.Command, args []string) error {
			e.Server, e.Code = args[0], a.askCode
			e.Keygen = func(c *exec.Cmd) error {
				c.Stdin, c.Stdout, c.Stderr = os.Stdin, cmd.ErrOrStderr(), cmd.ErrOrStderr()
				return c.Run()
			}
			k, err := e.Run(cmd.Context())
			verified := map[bool]string{true: "asks for its PIN", false: "asks for a touch alone"}[k.Verified]
			return a.done(err, "%s is enrolled for %s: a FIDO2 key of %s, which %s\n", k.Fingerprint, k.Person, k.Maker,
				verified)
		},
	}
	f := cmd.Flags()
	loginFlags(f, &e.Login)
	f.StringVar(&e.Key, "key", "", "the `FILE` of the key to make (default ~/.ssh/id_ed25519_sk)")
	f.StringVar(&e.Type, "type", "ed25519-sk", "the `TYPE` of the key: ed25519-sk, or ecdsa-sk for older FIDO2 keys")
	f.StringVar(&e.Label, "label", "", "your `WORDS` for it (default: its maker)")
	f.StringVar(&e.Provider, "provider", "", "use the library `FILE` of FIDO2 keys (default: OpenSSH's own)")
	f.BoolVar(&e.NoPIN, "no-pin", false, "make a key that a touch alone uses")
	f.BoolVar(&e.Resident, "resident", false, "keep in the FIDO2 key what other computers need to use it")
	return cmd
}
