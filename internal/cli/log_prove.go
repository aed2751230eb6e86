//go:build !noserver

package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/timeline"
	"github.com/spf13/cobra"
)

func (a *app) logVerify(ctx context.Context, o *logVerifyOptions) error {
	earlier := make([]string, len(o.earlier))
	for i, file := range o.earlier {
		text, err := a.readInput(file)
		if err != nil {
			return err
		}
		earlier[i] = string(text)
	}
	return a.withArchive(ctx, func(st *state.State) error {
		end := terminal.Working(a.err, "checking the timeline")
		report, err := st.VerifyLog(ctx, earlier...)
		end()
		if err != nil {
			return err
		}
		if err := a.printReport(report, *o.json); err != nil {
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
	})
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
	if r.Missing {
		fmt.Fprintf(a.out, "the first %d are in an archive that is not here: only the hashes over them were checked\n",
			r.Archived)
	}
	for _, w := range r.Witnesses {
		fmt.Fprintln(a.out, w)
	}
	return nil
}

func newLogProve(a *app) *cobra.Command {
	return fileCommand(a, "prove INDEX", "Write a proof that the timeline has an entry", a.withLog,
		func(ctx context.Context, log store.Timeline, args []string) ([]byte, error) {
			index, err := parseIndex(args[0])
			if err != nil {
				return nil, err
			}
			p, err := log.ProveEvent(ctx, index)
			return indented(p, err)
		})
}

// indented writes a value as JSON over several lines.
func indented(v any, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(v, "", "  ")
	return append(text, '\n'), err
}
