package cli

import (
	"strings"

	"github.com/postern-project/postern/internal/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newSSHLogin(a *app) *cobra.Command {
	var l client.Login
	cmd := &cobra.Command{
		Use:   "login SERVER",
		Short: "Get a short-lived SSH certificate for your key",
		RunE: func(cmd *cobra.Command, args []string) error {
			l.Server, l.Code = args[0], a.askCode
			signed, err := l.Run(cmd.Context())
			return a.done(err, "certificate %d opens %s until %s\n", signed.Serial,
				strings.Join(signed.Principals, ", "),
				signed.ValidBefore.Local().Format("2006-01-02 15:04"))
		},
	}
	f := cmd.Flags()
	loginFlags(f, &l)
	f.StringVar(&l.Key, "key", "", "the public key `FILE` (default ~/.ssh/id_ed25519.pub)")
	f.BoolVar(&l.Agent, "agent", false, "make a key and add it to the ssh-agent")
	f.BoolVar(&l.KnownHosts, "known-hosts", false, "trust the server's hosts, in ~/.ssh/known_hosts")
	return cmd
}

// loginFlags are the flags by which a person authenticates to a server.
func loginFlags(f *pflag.FlagSet, l *client.Login) {
	f.StringVar(&l.Person, "person", "", "your `NAME` there (default: your user name here)")
	f.StringVar(&l.Cert, "cert", "", "prove yourself with the client certificate in this `FILE`, PEM")
	f.StringVar(&l.CertKey, "cert-key", "", "its private key `FILE`, PEM (default: in the same file)")
	f.StringVar(&l.CA, "ca", "", "trust the server by the certificates in this `FILE`, PEM (default: the system's)")
}
