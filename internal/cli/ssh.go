package cli

import (
	"context"
	"fmt"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/spf13/cobra"
)

func newSSH(a *app) *cobra.Command {
	return group("ssh", "Two-factor SSH: audit, configure, sign",
		newSSHCheck(a), newSSHConfig(a), newSSHShell(a),
		newSSHSign(a), newSSHLogin(a), newSSHRevoke(a), newSSHKRL(a), newSSHKnownHosts(a), newSSHUserCA(a),
	)
}

type sshCheckOptions struct {
	auditor audit.Auditor
	prove   bool
	prover  audit.Prover
	json    *bool
}

func newSSHCheck(a *app) *cobra.Command {
	var o sshCheckOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find what is wrong with two-factor SSH on this host",
		Long: `Audit this host: what sshd demands of every kind of connection that its Match
blocks tell apart, what PAM's stack lets through, ForceCommands that act as a
second factor and the channels open beside them, how codes are validated, and
who can write the files that decide; lines of mapping files that cannot be parsed;
whether SELinux lets sshd ask Postern; where codes go by time, whether anything
keeps the clock (behind pam_postern that is so if a person in this host's state
has a TOTP device, and perhaps so if there is no state to read). Each finding names the line that causes it,
a command that shows it, and the fix. A way in that needs one factor is one,
unless postern ssh config wrote it, or the line above it is:

  # postern: one factor is meant

That line is an AuthenticationMethods, a condition of PAM's, or a ForceCommand. Where
sshd runs one command, by ForceCommand or by command= of each of an account's keys,
the finding says what that opens, and is less severe.

Accounts and groups are those that NSS knows (LDAP, SSSD, AD): those that sshd's
and PAM's rules name are looked up. A group without a known member is judged as if
a user were in it, unless it is in /etc/group.

With --root, audit the files below a directory, such as an image's or a container's.
All names and symbolic links are resolved there. The sshd that is there is asked,
with the directory as its root, without privileges and a network; where none is
there that runs, this host's, with copies of the files. Nothing is written.

The exit code is 1 if there are findings, 3 for who is not root, 4 without sshd's
configuration, and 5 without sshd.

With --prove, run what can be run of those commands against the local sshd; they
open a channel and close it. Give a user and a key that sshd accepts.`,
		Example: "  postern ssh check\n  postern ssh check --json\n" +
			"  postern ssh check --prove --user alice --identity ~alice/.ssh/id_ed25519",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sshCheck(cmd.Context(), &o) },
	}
	f := cmd.Flags()
	o.json = jsonFlag(cmd)
	f.StringVar(&o.auditor.Root, "root", "", "audit the files below `DIRECTORY`, as of an image")
	f.StringVar(&o.auditor.Config, "config", "",
		"sshd's configuration `FILE` (default: that of the sshd that runs, else /etc/ssh/sshd_config)")
	f.StringVar(&o.auditor.Service, "service", "",
		"sshd's PAM `SERVICE` (default: what its configuration says, else sshd)")
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
		o.auditor.TimeCodes = a.timeCodes
	}
	report, err := o.auditor.Audit(ctx)
	if err != nil {
		return err
	}
	if o.prove {
		o.prover.Prove(ctx, report)
	}
	if err := a.printSSHReport(report, *o.json); err != nil {
		return err
	}
	if n := len(report.Findings); n > 0 {
		return postern.Errorf(postern.Internal, "%s", terminal.Counted(n, "finding")).
			WithHint("each says how to fix it; postern ssh check --prove shows them at work")
	}
	return nil
}

// timeCodes reports whether a person in this host's own state has an authenticator that
// makes codes by time.
func (a *app) timeCodes(ctx context.Context) (used bool, err error) {
	err = a.withOTP(ctx, func(keys *store.OTP) error {
		used, err = keys.TimeCodes(ctx)
		return err
	})
	return used, err
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
