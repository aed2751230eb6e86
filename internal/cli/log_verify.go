package cli

import (
	"os"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

func newLog(a *app) *cobra.Command {
	return group("log", "The timeline: list, follow, verify, prove", append(logCommands(a), newLogVerify(a))...)
}

// logVerifyOptions are the flags of log verify.
type logVerifyOptions struct {
	earlier          []string
	save, proof, key string
	json             *bool
}

func newLogVerify(a *app) *cobra.Command {
	var o logVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nothing in the timeline was changed, dropped or reordered",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case (o.proof == "") != (o.key == ""):
				return postern.Errorf(postern.Invalid, "--proof and --key go together")
			case o.proof != "":
				return a.logVerifyProof(&o)
			}
			return a.logVerify(cmd.Context(), &o)
		},
	}
	cmd.Flags().StringArrayVar(&o.earlier, "earlier", nil,
		"compare with the checkpoint in `FILE` too; can be repeated")
	cmd.Flags().StringVar(&o.save, "save", "", "write the checkpoint to `FILE` if there is no problem")
	cmd.Flags().StringVar(&o.proof, "proof", "", "check the proof in `FILE` instead; - is standard input")
	cmd.Flags().StringVar(&o.key, "key", "", "the log's public key, or the `FILE` that holds it (log.vkey)")
	o.json = jsonFlag(cmd)
	return cmd
}

func (a *app) logVerifyProof(o *logVerifyOptions) error {
	key := o.key
	if text, err := os.ReadFile(o.key); err == nil {
		key = strings.TrimSpace(string(text))
	}
	text, err := a.readInput(o.proof)
	if err != nil {
		return err
	}
	p, e, c, err := timeline.CheckProof(text, key)
	if err == nil && *o.json {
		return terminal.JSON(a.out, e)
	}
	return a.done(err, "ok: entry %d of %s, of %s when it was proved\n%s\n", e.Index, c.Origin,
		terminal.Counted(c.Size, "entry"), p.Entry)
}
