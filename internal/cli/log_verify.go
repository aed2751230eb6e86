package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
)

// logVerifyOptions are the flags of log verify.
type logVerifyOptions struct {
	earlier          []string
	save, proof, key string
	json             bool
}

func newLogVerify(a *app) *cobra.Command {
	var o logVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nothing in the timeline was changed, dropped or reordered",
		Long: `Check every entry of the timeline against the hashes and the signed checkpoint,
and against the checkpoint that the last verification left in the state directory. A
checkpoint that was saved elsewhere with --save and is given with --earlier also
finds a log that was cut or written anew by an attacker who has its key.

With --proof and --key it checks one entry, as log prove wrote it, and needs
nothing else: no state directory, no network.`,
		Example: `  postern log verify
  postern log verify --save /mnt/elsewhere/checkpoint
  postern log verify --earlier /mnt/elsewhere/checkpoint
  postern log verify --proof entry42.json --key log.vkey`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (o.proof == "") != (o.key == "") {
				return postern.Errorf(postern.Invalid, "--proof and --key go together")
			}
			if o.proof != "" {
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
	jsonFlag(cmd, &o.json)
	return cmd
}

// readCheckpoints reads the checkpoints in files.
func readCheckpoints(files []string) ([]string, error) {
	var earlier []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, postern.Errorf(postern.NotFound, "read the earlier checkpoint: %w", err)
		}
		earlier = append(earlier, string(text))
	}
	return earlier, nil
}

func (a *app) logVerify(ctx context.Context, o *logVerifyOptions) error {
	earlier, err := readCheckpoints(o.earlier)
	if err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	report, err := st.VerifyLog(ctx, earlier...)
	if err != nil {
		return err
	}
	if err := a.printReport(report, o.json); err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return postern.Errorf(postern.Internal, "the timeline was changed after it was written").
			WithHint("keep the database as it is, since it is the evidence; go on with a backup that verifies")
	}
	if o.save == "" {
		return nil
	}
	if err := durable.Output(o.save, []byte(report.Checkpoint), 0o644); err != nil {
		return postern.Errorf(postern.Unavailable, "save the checkpoint: %w", err)
	}
	return nil
}

func (a *app) printReport(r timeline.Report, asJSON bool) error {
	if asJSON {
		return terminal.JSON(a.out, r)
	}
	for _, p := range r.Problems {
		fmt.Fprintln(a.out, p)
	}
	if len(r.Problems) == 0 {
		fmt.Fprintf(a.out, "ok: %s, all as written\n", terminal.Counted(r.Size, "entry"))
	}
	return nil
}

func (a *app) logVerifyProof(o *logVerifyOptions) error {
	key := o.key
	if text, err := os.ReadFile(o.key); err == nil {
		key = strings.TrimSpace(string(text))
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return postern.Errorf(postern.Invalid, "--key is neither a file nor a log's public key")
	}
	text, err := a.readInput(o.proof)
	if err != nil {
		return err
	}
	p, err := timeline.ParseProof(text)
	if err != nil {
		return err
	}
	e, c, err := p.Check(v)
	if err != nil {
		return err
	}
	if o.json {
		return terminal.JSON(a.out, e)
	}
	fmt.Fprintf(a.out, "ok: entry %d of %s, of %s when it was proved\n%s\n",
		e.Index, c.Origin, terminal.Counted(c.Size, "entry"), p.Entry)
	return nil
}

func newLogProve(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "prove INDEX",
		Short: "Write a proof that the timeline has an entry",
		Long: `Write a proof that the timeline has an entry, for a reader who has the log's
public key (log.vkey in the state directory) and nothing else. They check it with
log verify --proof FILE --key KEY. The proof holds the entry as it was written, and
nothing of the others but their hashes.`,
		Example: "  postern log prove 42 --out entry42.json",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logProve(cmd.Context(), args[0], out) },
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "the `FILE` to write (default: standard output)")
	return cmd
}

func (a *app) logProve(ctx context.Context, arg, out string) error {
	index, err := parseIndex(arg)
	if err != nil {
		return err
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	p, err := st.Store.Timeline().ProveEvent(ctx, index)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return a.print(out, append(text, '\n'))
}
