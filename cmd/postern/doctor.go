package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/postern-project/postern/internal/server"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/spf13/cobra"
)

// finding is one thing that could be better on this host, and how.
type finding struct {
	Part    string `json:"part"`
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
	Advice  bool   `json:"advice,omitempty"` // nothing is broken; it could be better
}

// examination is what the doctor found, as doctor --json prints it.
type examination struct {
	OK       []string  `json:"ok"`
	Findings []finding `json:"findings"`
}

// doctor looks at one part after the other.
type doctor struct {
	*app
	examination
	now time.Time
}

func newDoctor(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong on this host, and how to fix it",
		Long: `Looks at the state directory, its key and database, the timeline, the certificate authority, a running server,
two-factor SSH and the watching of libvirt, and says of each what is wrong and the command that fixes it. It changes
nothing. The exit code is 1 if something is wrong; advice alone is not.`,
		Example: `  postern doctor
  postern doctor --json | jq .findings`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{app: a, now: time.Now(), examination: examination{OK: []string{}, Findings: []finding{}}}
			return d.examine(cmd.Context(), asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (d *doctor) examine(ctx context.Context, asJSON bool) error {
	d.clock()
	d.state(ctx)
	d.ssh(ctx)
	d.libvirt()
	if err := d.print(asJSON); err != nil {
		return err
	}
	problems := 0
	for _, f := range d.Findings {
		if !f.Advice {
			problems++
		}
	}
	if problems > 0 {
		return postern.Errorf(postern.Internal, "this host has %s", terminal.Counted(problems, "problem")).WithHint("each is named above, with what fixes it")
	}
	return nil
}

func (d *doctor) print(asJSON bool) error {
	if asJSON {
		return terminal.JSON(d.out, d.examination)
	}
	t := terminal.Table{Wrapped: true}
	for _, text := range d.OK {
		t.Rows = append(t.Rows, []string{"ok", text})
	}
	for _, f := range d.Findings {
		mark := "problem"
		if f.Advice {
			mark = "advice"
		}
		t.Rows = append(t.Rows, []string{mark, f.Part + ": " + f.Problem}, []string{"  fix", f.Fix})
	}
	return t.Print(d.out, d.screen)
}

func (d *doctor) ok(format string, args ...any) {
	d.OK = append(d.OK, fmt.Sprintf(format, args...))
}

func (d *doctor) wrong(part, fix, format string, args ...any) {
	d.Findings = append(d.Findings, finding{Part: part, Problem: fmt.Sprintf(format, args...), Fix: fix})
}

func (d *doctor) advise(part, fix, format string, args ...any) {
	d.Findings = append(d.Findings, finding{Part: part, Problem: fmt.Sprintf(format, args...), Fix: fix, Advice: true})
}

// failed notes an error with its own hint as the fix.
func (d *doctor) failed(part string, err error, fix string) {
	if hint := hintOf(err); hint != "" {
		fix = hint
	}
	d.wrong(part, fix, "%s", err)
}

// clock asks the kernel whether somebody keeps the clock right: certificates
// and one-time passwords depend on it.
func (d *doctor) clock() {
	synchronized, _, err := system.ClockState()
	switch {
	case err != nil:
		d.failed("clock", err, "")
	case !synchronized:
		d.advise("clock", "run a time service: apt install chrony", "nobody keeps it synchronised; certificates and codes depend on it")
	default:
		d.ok("the clock is synchronised")
	}
}

// state looks at the state directory and what is in it.
func (d *doctor) state(ctx context.Context) {
	dir, err := d.stateDir()
	if err != nil {
		d.failed("state", err, "")
		return
	}
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.wrong("state", "chmod 700 "+dir, "%s can be looked into by others", dir)
	}
	st, err := d.open(ctx)
	if err != nil {
		d.failed("state", err, "postern init")
		return
	}
	defer st.Close()
	d.ok("the database in %s opens", dir)
	if st.Rekeying() {
		d.wrong("key", "postern rekey", "a change of the key-encrypting key was not finished")
	}
	d.room(dir)
	d.log(ctx, st)
	d.following(ctx, st)
	d.authority(ctx, st)
	d.server(dir)
}

// room looks at the disk: a full one lets nobody in.
func (d *doctor) room(dir string) {
	const least = 256 << 20
	if free, ok := system.Free(dir); ok && free < least {
		d.wrong("disk", "make room on the disk of "+dir, "only %d MiB are left; on a full disk nobody gets in", free>>20)
	}
}

func (d *doctor) log(ctx context.Context, st *state.State) {
	report, err := st.Store.Timeline().VerifyLog(ctx)
	switch {
	case err != nil:
		d.failed("timeline", err, "postern log verify")
	case len(report.Problems) > 0:
		d.wrong("timeline", "postern log verify", "%d lines do not verify", len(report.Problems))
	default:
		d.ok("the timeline's %d lines verify", report.Size)
	}
}

// following says whether a server of this state reads what sshd logs.
func (d *doctor) following(ctx context.Context, st *state.State) {
	last, err := server.SSHLog(ctx, st)
	switch {
	case err != nil:
		d.failed("timeline", err, "postern log verify")
	case last.Outcome == postern.Failed:
		d.advise("ssh", "see that the journal, or /var/log/auth.log, is there for the server to read",
			"the server has not read sshd's log since %s: %s", last.Time.Format(time.DateTime), last.Reason)
	}
}

// soon is how long before its end a certificate is worth a word.
const soon = 14 * 24 * time.Hour

func (d *doctor) authority(ctx context.Context, st *state.State) {
	authority, err := ca.Open(ctx, ca.Config{Keys: deviceKeys()}, st.Store.CA())
	if err != nil {
		d.failed("ca", err, "postern init")
		return
	}
	d.devices(ctx, authority)
	if authority.HasKey(string(ca.Root)) && authority.RootKeyMoves() == nil {
		d.advise("ca", "postern ca root export-key, keep the file elsewhere, then postern ca root remove-key", "the root's key is on this machine; kept elsewhere it cannot be stolen from here")
	}
	for _, role := range []ca.Role{ca.Server, ca.Client} {
		trusted, fix := authority.Trusted(role), newIntermediateCommand(role)
		switch {
		case len(trusted) == 0:
			d.wrong("ca", fix, "every %s CA was revoked or has expired: none issues", role)
		case trusted[len(trusted)-1].NotAfter.Before(d.now.Add(90 * 24 * time.Hour)):
			d.wrong("ca", fix, "the %s CA ends on %s", role, trusted[len(trusted)-1].NotAfter.Format(time.DateOnly))
		}
	}
	switch {
	case authority.URL() != "":
		d.ok("certificates say to ask about revocation at %s", authority.URL())
	case !authority.URLChosen():
		d.advise("ca", "postern ca url http://HOST, by which others reach this server", "certificates do not say where to ask about their revocation")
	}
	for _, role := range unlisted(authority) {
		d.advise("ca", newIntermediateCommand(role), "the %s CA was made before that address was known: should it be revoked, who checks is not told where", role)
	}
	list, err := authority.Certificates(ctx, ca.Filter{Valid: d.now})
	if err != nil {
		d.failed("ca", err, "")
		return
	}
	ending := 0
	for _, c := range list {
		if c.Profile != ca.ProfileOCSP && c.NotAfter.Before(d.now.Add(soon)) {
			ending++
			d.advise("certificate", "postern ca renew "+c.Serial, "%s (%s) ends on %s", c.Subject, c.Serial, c.NotAfter.Format(time.DateOnly))
		}
	}
	if ending == 0 {
		d.ok("none of %d certificates ends within 14 days", len(list))
	}
}

// devices looks for the keys that are in devices.
func (d *doctor) devices(ctx context.Context, authority *ca.Authority) {
	for _, i := range authority.Issuers() {
		switch err := authority.CheckKey(ctx, i.ID); {
		case i.KeyURI == "":
		case err != nil:
			d.failed("ca", fmt.Errorf("the %s CA: %w", i.ID, err), "")
		default:
			d.ok("the key of the %s CA is in its device", i.ID)
		}
	}
}

func (d *doctor) server(dir string) {
	pid, err := state.ServedBy(dir)
	if err != nil {
		d.advise("server", "postern run", "no server runs on %s", dir)
		return
	}
	d.ok("process %d serves %s", pid, dir)
	if err := server.CheckConfig(filepath.Join(dir, server.ConfigFile)); err != nil && !errors.Is(err, fs.ErrNotExist) && postern.CodeOf(err) != postern.NotFound {
		d.failed("configuration", err, "fix the file; the server goes on with the one before")
	}
}

// ssh runs the auditor's look where sshd is installed and may be asked.
func (d *doctor) ssh(ctx context.Context) {
	if _, err := exec.LookPath("/usr/sbin/sshd"); err != nil {
		return
	}
	if os.Geteuid() != 0 {
		d.advise("ssh", "sudo postern ssh check", "sshd tells its configuration to root only")
		return
	}
	d.unconfirmed(setup.ThisHost())
	report, err := audit.Auditor{TimeCodes: d.timeCodes}.Audit(ctx)
	if err != nil {
		d.advise("ssh", "postern ssh check", "sshd's configuration cannot be audited: %s", err)
		return
	}
	if len(report.Findings) == 0 {
		d.ok("nothing is wrong with two-factor SSH")
		return
	}
	for _, f := range report.Findings {
		d.wrong("ssh", "postern ssh check", "%s: %s (%s)", f.Severity, f.Title, f.Where)
	}
}

// unconfirmed looks for a configuration of sshd that nobody has come in by, such
// as one that a crash kept from being put back.
func (d *doctor) unconfirmed(applier setup.Applier) {
	dir, err := applier.Pending()
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
	case err != nil:
		d.failed("ssh", err, "see what is in "+applier.Dir)
	default:
		d.wrong("ssh", "postern ssh config --confirm in a new SSH login, or postern ssh config --within 0s --roll-back "+dir,
			"sshd's new configuration waits for a login to confirm it; after a crash of the host, postern-ssh-config.service puts it back")
	}
}

// libvirt says whether its probes can be read, where there is a libvirt.
func (d *doctor) libvirt() {
	files, err := capture.Ready()
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
	case err != nil:
		d.advise("libvirt", postern.HintOf(err), "it cannot be watched: %s", err)
	default:
		d.ok("libvirt can be watched (%d files with probes)", files)
	}
}
