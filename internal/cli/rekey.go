package cli

import (
	"context"

	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newRekey(a *app) *cobra.Command {
	var others bool
	cmd := &cobra.Command{
		Use:   "rekey",
		Short: "Seal all secrets again under a new key-encrypting key",
		RunE: on(a.withDir, func(ctx context.Context, dir string, _ []string) error {
			end := terminal.Working(a.err, "sealing secrets again")
			done, err := state.Rekey(ctx, dir, others)
			end()
			if done.Next != "" {
				return a.done(err, `The new key is %s.
Copy it into the state directory of every other server of this database, run "postern run --reload" there,
and then here: postern rekey --others-know
`, done.Next)
			}
			return a.done(err, "sealed %s again; the new key is %s\n", terminal.Counted(done.Sealed, "secret"),
				done.Key)
		}),
	}
	cmd.Flags().BoolVar(&others, "others-know", false,
		"the other servers of this database have kek.next and were reloaded")
	return cmd
}
