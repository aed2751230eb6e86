package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/login"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

type sshConfigOptions struct {
	setup    setup.Setup
	userCA   string
	krl      string
	apply    bool
	force    bool
	confirm  bool
	rollBack string
	overdue  bool
	within   time.Duration
}

func newSSHConfig(a *app) *cobra.Command {
	var o sshConfigOptions
	cmd := plain("config", "Write the right sshd and PAM configuration for two factors",
		func(ctx context.Context, _ []string) error { return a.sshConfig(ctx, &o) })
	f := cmd.Flags()
	f.StringVar((*string)(&o.setup.Mode), "mode", string(setup.KeyAndCode),
		"what is asked for: one of the `MODES` above")
	f.StringSliceVar(&o.setup.Groups, "group", nil, "a `GROUP` for groups-only; can be repeated")
	f.StringVar(&o.setup.PasswordGroup, "password-group", "", "the `GROUP` of those without a key")
	f.BoolVar(&o.setup.Root, "root", false, "let root log in, with the same factors")
	f.StringVar(&o.setup.RescueUser, "rescue-user", "", "the `ACCOUNT` for emergencies")
	f.StringVar(&o.setup.RescueFrom, "rescue-from", "", "the `ADDRESS` or network that it logs in from")
	f.StringVar(&o.setup.Module, "module", "", "the `FILE` of pam_postern, if it is not among PAM's modules")
	f.StringVar(&o.setup.Socket, "socket", "", "the daemon's `SOCKET`, if it is not /run/postern/pam.sock")
	f.StringVar(&o.setup.HostCertificate, "host-certificate", "", "the host's SSH certificate `FILE`")
	f.StringVar(&o.userCA, "user-ca", "", "the `FILE` of CAs for certificates (default: this host's own state)")
	f.StringVar(&o.krl, "krl", "", "the `FILE` of revoked keys (default: this host's own state)")
	f.BoolVar(&o.apply, "apply", false, "put the files in place")
	f.BoolVar(&o.force, "force", false, "apply although it may lock you out, or still permits one factor")
	f.DurationVar(&o.within, "within", 5*time.Minute, "the `DURATION` that a new login may take to confirm")
	f.BoolVar(&o.confirm, "confirm", false, "keep what was applied; say it in a new SSH login")
	f.StringVar(&o.rollBack, "roll-back", "", "put back what the backup `DIRECTORY` holds")
	f.BoolVar(&o.overdue, "roll-back-overdue", false, "put back what was not confirmed in time, as after a crash")
	return cmd
}

func (a *app) sshConfig(ctx context.Context, o *sshConfigOptions) error {
	if err := system.OnlyLinux("configuring sshd"); err != nil {
		return err
	}
	if os.Geteuid() != 0 && (o.confirm || o.apply || o.overdue || o.rollBack != "") {
		return postern.Errorf(postern.Denied, "only root can change how people log in")
	}
	switch applier := setup.ThisHost(); {
	case o.confirm:
		dir, err := applier.Confirm(os.Getpid())
		return a.done(err, "the new configuration stays; what it replaced is in %s\n", dir)
	case o.rollBack != "":
		return a.rollBack(ctx, applier, o)
	case o.overdue: // at boot this runs before sshd does
		dir, err := applier.RollBackOverdue(ctx)
		if err != nil || dir == "" {
			return err
		}
		return a.done(nil, "the new configuration was not confirmed in time: the old one is back, from %s\n", dir)
	}
	if err := a.certificateFiles(ctx, o); err != nil {
		return err
	}
	files, err := o.setup.Files("")
	switch {
	case err != nil:
		return err
	case o.apply:
		return a.applySSH(ctx, files, o)
	}
	for _, f := range files {
		fmt.Fprintf(a.out, "# %s\n%s\n", f.Path, f.Content)
	}
	return nil
}

// certificateFiles reads what the mode of certificates needs: from the files
// given, else from this host's own state.
func (a *app) certificateFiles(ctx context.Context, o *sshConfigOptions) (err error) {
	switch s := &o.setup; {
	case s.Mode != setup.Certificates:
		return nil
	case o.userCA != "":
		if s.UserCA, err = a.prompt().Read(o.userCA); err == nil && o.krl != "" {
			s.KRL, err = a.prompt().Read(o.krl)
		}
		return err
	default:
		return a.userCAFiles(ctx, s)
	}
}

func (a *app) applySSH(ctx context.Context, files []setup.File, o *sshConfigOptions) error {
	backup, err := login.Config{
		Setup: o.setup, User: cmp.Or(os.Getenv("SUDO_USER"), "root"), Within: o.within, Force: o.force,
		Locked: a.warnLocked, Open: a.warnOpen, HasFactor: a.hasFactor,
		Wait: func(backup string) error {
			return system.StartAgain("ssh", "config", "--roll-back", backup, "--within", o.within.String())
		},
	}.Apply(ctx, files)
	return a.done(err, `applied; what it replaced is in %s
Keep this session. Log in from another terminal and run

  postern ssh config --confirm

there, within %v: otherwise everything is put back.
`, backup, o.within)
}

// warnLocked says why the user might not be able to log in again.
func (a *app) warnLocked(reason error) {
	fmt.Fprintf(a.err, "warning: %v\n", reason)
	if hint := hintOf(reason); hint != "" {
		fmt.Fprintf(a.err, "  fix: %s\n", hint)
	}
}

// warnOpen says how people can still log in with one factor.
func (a *app) warnOpen(f audit.Finding) {
	fmt.Fprintf(a.err, "warning: %s (%s)\n  %s\n  seen with sshd -T -C %s\n  fix: %s\n", f.Title, f.ID, f.Where,
		f.Case, inCommands(f.Fix))
}

// rollBack waits, and puts everything back unless it was confirmed.
func (a *app) rollBack(ctx context.Context, applier setup.Applier, o *sshConfigOptions) error {
	signal.Ignore(syscall.SIGHUP) // the terminal may go
	return applier.RollBackAfter(ctx, o.rollBack, o.within, func(err error, again time.Duration) {
		fmt.Fprintf(a.err, "postern: %v; trying again in %v\n", err, again)
	})
}

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
