package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern/internal/witness"
	"github.com/spf13/cobra"
)

func newWitness(a *app) *cobra.Command {
	var o witness.Options
	var log *logFlags
	cmd := plain("witness DIR", "Be a witness of logs: cosign their checkpoints",
		func(ctx context.Context, args []string) error {
			o.Dir, o.Log = args[0], a.log(*log)
			o.Ready = func(address, key string) { fmt.Fprintf(a.out, "%s listens on http://%s\n", key, address) }
			return witness.Serve(ctx, o)
		})
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "", "`NAME` of a new witness, a URL without its scheme: witness.example.com")
	f.StringArrayVar(&o.Logs, "log", nil, "public `KEY` of a log, or a file that holds it (log.vkey); can be repeated")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:7380", "`ADDRESS` to answer logs at, by plain HTTP")
	log = logFlagsOf(cmd)
	required(cmd, "log")
	return cmd
}
