//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/postern-project/postern"
	_ "github.com/postern-project/postern/front/standard" // all of Caddy stays usable in a configuration
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/spf13/cobra"
)

// serverCommands returns the commands of a server. A build with the tag noserver has none
// of them, and links neither Caddy nor a database.
func serverCommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newInit(a), newRun(a), newUser(a), newHost(a), newCA(a), newAlert(a), newImport(a), newRekey(a), newBackup(a),
		newRestore(a), newDoctor(a), newWho(a), newMan(a), newSchema(a), newPKCS11Module(),
	}
}

func newRun(a *app) *cobra.Command {
	o := server.Options{Person: system.InvokingUser(), Keys: new(pkcs11.Keys), Ready: a.greet}
	o.Version = system.Version()
	var reload bool
	var log *logFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve the front door, portal and the rest",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.State, err = a.stateDir(); err != nil {
				return err
			}
			if reload {
				pid, file, err := server.Reload(cmd.Context(), o.State, o.Config)
				return a.done(err, "process %d has loaded %s\n", pid, file)
			}
			o.Ports = cmd.Flags().Changed("https-port") || cmd.Flags().Changed("http-port")
			o.Log = a.log(*log)
			o.LogJSON = log.json
			return server.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Config, "config", "c", "",
		"the `FILE` to serve, a Caddyfile (default: Caddyfile in the state directory)")
	f.IntVar(&o.HTTPSPort, "https-port", 8443, "`PORT` of the sample site, when it is made; 0 is any that is free")
	f.IntVar(&o.HTTPPort, "http-port", 8080,
		"`PORT` that sends the sample site's visitors to HTTPS; 0 is any that is free")
	f.BoolVar(&reload, "reload", false, "make the server that runs on this state load its configuration again")
	f.StringVar(&o.PAMSocket, "pam-socket", "",
		"answer pam_postern on this `SOCKET` (default for root with the state /var/lib/postern: /run/postern/pam.sock)")
	log = logFlagsOf(cmd)
	return cmd
}

// greet says where the server stands, and how to get in.
func (a *app) greet(s *server.Started) {
	fmt.Fprintf(a.out, "postern %s serves %s (state in %s, process %d)\n", system.Version(), s.Config, s.State,
		os.Getpid())
	if f := s.Sample; f != nil {
		fmt.Fprintf(a.out, `
  site      %s/           public
  guarded   %s/guarded/   only %s may
  portal    %s/
  ACME      %s

  The certificate that opens it:
    for a browser  %s
    its password   is in %s
    trust first    %s

  Or from here:
    curl --cacert %s --cert %s --key %s %s/guarded/

`, f.Site, f.Site, f.Person, f.Portal, f.ACME, f.PKCS12, f.PasswordFile, f.Root, f.Root, f.Certificate, f.Key, f.Site)
	}
}

func newAlert(a *app) *cobra.Command {
	return group("alert", "What is reported from the timeline by mail, webhook or command",
		command("test NAME", "Send a message of an alert to its receivers", a.withState,
			func(ctx context.Context, st *state.State, args []string) error {
				return server.TestAlert(ctx, st, args[0], func(e postern.Event) {
					fmt.Fprintf(a.out, "%s: %s\n", e.Details["to"], cmp.Or(e.Reason, string(e.Outcome)))
				})
			}))
}
