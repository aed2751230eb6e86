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
	cmd := group("log", "The timeline: list, follow, verify, prove, archive",
		append(logCommands(a), newLogVerify(a))...)
	cmd.PersistentFlags().StringVar(&a.archive, "archive", "",
		"where the archive of old entries is now, a `DIRECTORY` (default: where it was written)")
	return cmd
}

// logVerifyOptions are the flags of log verify.
type logVerifyOptions struct {
	earlier                  []string
	save, proof, key, policy string
	json                     *bool
}

func newLogVerify(a *app) *cobra.Command {
	var o logVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nothing in the timeline was changed, dropped or reordered",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case (o.proof == "") != (o.key == "" && o.policy == ""):
				return postern.Errorf(postern.Invalid, "--proof and --key go together, or --proof and --policy")
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
	cmd.Flags().StringVar(&o.policy, "policy", "",
		"the `FILE` that names logs and witnesses, and how many of them must have cosigned; instead of --key")
	cmd.MarkFlagsMutuallyExclusive("key", "policy")
	o.json = jsonFlag(cmd)
	return cmd
}

func (a *app) logVerifyProof(o *logVerifyOptions) error {
	text, err := a.prompt().Read(o.proof)
	if err != nil {
		return err
	}
	var checked timeline.Checked
	if o.policy != "" {
		var policy []byte
		if policy, err = a.prompt().Read(o.policy); err == nil {
			checked, err = timeline.CheckProofByPolicy(text, policy)
		}
	} else {
		key := o.key
		if file, err := os.ReadFile(o.key); err == nil {
			key = strings.TrimSpace(string(file))
		}
		checked, err = timeline.CheckProof(text, key)
	}
	if err == nil && *o.json {
		return terminal.JSON(a.out, checked.Event)
	}
	return a.done(err, "%s\n%s\n", checked, checked.Entry)
}
