//go:build !noserver

package cli

import (
	"context"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/ca/pkcs11"
	"github.com/postern-project/postern/internal/doctor"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newDoctor(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "Say what is wrong on this host, and how to fix it"}
	asJSON := jsonFlag(cmd)
	cmd.RunE = on(a.withDir, func(ctx context.Context, dir string, _ []string) error {
		return a.doctor(ctx, dir, *asJSON)
	})
	return cmd
}

func (a *app) doctor(ctx context.Context, dir string, asJSON bool) (err error) {
	report := doctor.Examine(ctx, doctor.Host{
		Dir: dir, CA: ca.Config{Keys: new(pkcs11.Keys)}, SSH: setup.ThisHost(),
		Auditor: audit.Auditor{TimeCodes: a.timeCodes, UserCA: a.userCA},
	})
	for i, f := range report.Findings {
		report.Findings[i].Fix = fixOf(f)
	}
	if asJSON {
		err = terminal.JSON(a.out, report)
	} else {
		err = a.printFindings(report)
	}
	if n := report.Problems(); n > 0 && err == nil {
		return postern.Errorf(postern.Internal, "this host has %s", terminal.Counted(n, "problem")).
			WithHint("each is named above, with what fixes it")
	}
	return err
}

// fixOf returns what to do about a finding, in commands where there are any.
func fixOf(f doctor.Finding) string {
	if f.Err != nil {
		if hint := hintOf(f.Err); hint != "" {
			return hint
		}
	}
	return inCommands(f.Fix)
}

func (a *app) printFindings(r *doctor.Report) error {
	t := terminal.Table{Wrapped: true}
	for _, text := range r.OK {
		t.Rows = append(t.Rows, []string{"ok", text})
	}
	for _, f := range r.Findings {
		mark := "problem"
		if f.Advice {
			mark = "advice"
		}
		t.Rows = append(t.Rows, []string{mark, f.Part + ": " + f.Problem}, []string{"  fix", f.Fix})
	}
	return t.Print(a.out, a.screen)
}
