package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newSSH(a *app) *cobra.Command {
	return group("ssh", "Two-factor SSH: audit, configure, sign",
		append(sshCommands(a), newSSHCheck(a), newSSHConfig(a), newSSHShell(a), newSSHLogin(a), newSSHEnrol(a))...)
}

type sshCheckOptions struct {
	auditor audit.Auditor
	prove   bool
	record  bool
	prover  audit.Prover
	json    *bool
}

func newSSHCheck(a *app) *cobra.Command {
	var o sshCheckOptions
	cmd := plain("check", "Find what is wrong with two-factor SSH on this host",
		func(ctx context.Context, _ []string) error { return a.sshCheck(ctx, &o) })
	f := cmd.Flags()
	o.json = jsonFlag(cmd)
	f.StringVar(&o.auditor.Root, "root", "", "audit the files below `DIRECTORY`, as of an image")
	f.StringVar(&o.auditor.Config, "config", "",
		"sshd's configuration `FILE` (default: that of the sshd that runs, else /etc/ssh/sshd_config)")
	f.StringVar(&o.auditor.Service, "service", "",
		"sshd's PAM `SERVICE` (default: what its configuration says, else sshd)")
	f.BoolVar(&o.record, "record", false, "record on the timeline whether there are findings, where that has changed")
	f.BoolVar(&o.prove, "prove", false, "run the proofs against the local sshd")
	f.StringVar(&o.prover.User, "user", "", "prove as this `USER` only")
	f.StringVar(&o.prover.Identity, "identity", "", "the private key `FILE` to prove with")
	f.StringVar(&o.prover.Port, "port", "", "the `PORT` that sshd listens on, if not 22")
	return cmd
}

func (a *app) sshCheck(ctx context.Context, o *sshCheckOptions) error {
	if err := system.OnlyLinux("judging sshd"); err != nil {
		return err
	}
	if o.auditor.Root == "" {
		a.auditState(&o.auditor)
	}
	report, err := o.auditor.Audit(ctx)
	if err != nil {
		return err
	}
	for i, f := range report.Findings {
		report.Findings[i].Fix = inCommands(f.Fix)
	}
	if o.prove {
		o.prover.Prove(ctx, report)
	}
	if err := a.printSSHReport(report, *o.json); err != nil {
		return err
	}
	if o.record {
		if err := a.recordAudit(ctx, report); err != nil {
			return err
		}
	}
	if n := len(report.Findings); n > 0 {
		return postern.Errorf(postern.Internal, "%s", terminal.Counted(n, "finding")).
			WithHint("each says how to fix it; postern ssh check --prove shows them at work")
	}
	return nil
}

func (a *app) printSSHReport(r *audit.Report, asJSON bool) error {
	if asJSON {
		return terminal.JSON(a.out, r)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(a.out, "%s: %s (%s)\n  %s\n", f.Severity, f.Title, f.ID, f.Where)
		if f.Case != "" {
			fmt.Fprintf(a.out, "  seen with sshd -T -C %s\n", f.Case)
		}
		fmt.Fprintf(a.out, "  proof: %s\n", f.Proof)
		if f.Proved != "" {
			fmt.Fprintf(a.out, "  %s\n", f.Proved)
		}
		fmt.Fprintf(a.out, "  fix: %s\n\n", f.Fix)
	}
	return a.done(nil, "%s tried, %s\n", terminal.Counted(r.Cases, "case"),
		terminal.Counted(len(r.Findings), "finding"))
}
