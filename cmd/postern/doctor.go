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

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// ailment is one thing that is wrong on this host, and what mends it.
type ailment struct {
	Part   string `json:"part"`
	What   string `json:"what"`
	Mend   string `json:"mend"`
	Advice bool   `json:"advice,omitempty"` // nothing is broken; it could be better
}

// doctor looks at one part after the other.
type doctor struct {
	*app
	now   time.Time
	fine  []string
	found []ailment
}

func newDoctor(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong on this host, and what mends it",
		Long: `Looks at the state directory, its key and database, the timeline, the certificate authority, a running server,
two-factor SSH and the watching of libvirt, and says of each what is wrong and the command that mends it. It changes
nothing. The exit code is 1 if something is wrong; advice alone is not.`,
		Example: `  postern doctor
  postern doctor --json | jq .found`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{app: a, now: time.Now()}
			return d.examine(cmd.Context(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (d *doctor) examine(ctx context.Context, asJSON bool) error {
	d.clock()
	d.state(ctx)
	d.ssh(ctx)
	d.libvirt()
	wrong := 0
	for _, x := range d.found {
		if !x.Advice {
			wrong++
		}
	}
	if asJSON {
		if err := printJSON(d.out, struct {
			Fine  []string  `json:"fine"`
			Found []ailment `json:"found"`
		}{append([]string{}, d.fine...), append([]ailment{}, d.found...)}); err != nil {
			return err
		}
	} else {
		d.print()
	}
	if wrong > 0 {
		return postern.Errorf(postern.Internal, "%d things are wrong on this host", wrong)
	}
	return nil
}

func (d *doctor) print() {
	for _, f := range d.fine {
		fmt.Fprintf(d.out, "ok      %s\n", f)
	}
	for _, x := range d.found {
		mark := "wrong "
		if x.Advice {
			mark = "advice"
		}
		fmt.Fprintf(d.out, "%s  %s: %s\n        mend: %s\n", mark, x.Part, x.What, x.Mend)
	}
}

func (d *doctor) ok(format string, args ...any) {
	d.fine = append(d.fine, fmt.Sprintf(format, args...))
}

func (d *doctor) wrong(part, mend, format string, args ...any) {
	d.found = append(d.found, ailment{Part: part, What: fmt.Sprintf(format, args...), Mend: mend})
}

func (d *doctor) advise(part, mend, format string, args ...any) {
	d.found = append(d.found, ailment{Part: part, What: fmt.Sprintf(format, args...), Mend: mend, Advice: true})
}

// failed notes an error with its own hint as the mend.
func (d *doctor) failed(part string, err error, mend string) {
	if hint := postern.HintOf(err); hint != "" {
		mend = hint
	}
	d.wrong(part, mend, "%s", err)
}

// clock asks the kernel whether somebody keeps the clock right: certificates
// and one-time passwords depend on it.
func (d *doctor) clock() {
	var t unix.Timex
	state, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, &t)
	const unsynchronised = 5 // TIME_ERROR
	switch {
	case err != nil:
		d.failed("clock", err, "")
	case state == unsynchronised:
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
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return
	}
	const least = 256 << 20
	if free := s.Bavail * uint64(s.Bsize); free < least {
		d.wrong("disk", "make room on the disk of "+dir, "only %d MiB are left; on a full disk nobody gets in", free>>20)
	}
}

func (d *doctor) log(ctx context.Context, st *state.State) {
	report, err := st.Store.VerifyLog(ctx)
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
	last, err := lastFollowing(ctx, st)
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
	authority, err := ca.Open(ctx, ca.Config{Keys: deviceKeys()}, st.Store)
	if err != nil {
		d.failed("ca", err, "postern init")
		return
	}
	d.devices(ctx, authority)
	if authority.HasKey(string(ca.Root)) && authority.RootKeyMoves() == nil {
		d.advise("ca", "postern ca root export-key, keep the file elsewhere, then postern ca root remove-key", "the root's key is on this machine; kept elsewhere it cannot be stolen from here")
	}
	for _, role := range []ca.Role{ca.Server, ca.Client} {
		trusted, mend := authority.Trusted(role), ca.NewIntermediateCommand(role)
		switch {
		case len(trusted) == 0:
			d.wrong("ca", mend, "every %s CA was revoked or has expired: none issues", role)
		case trusted[len(trusted)-1].NotAfter.Before(d.now.Add(90 * 24 * time.Hour)):
			d.wrong("ca", mend, "the %s CA ends on %s", role, trusted[len(trusted)-1].NotAfter.Format(time.DateOnly))
		}
	}
	switch {
	case authority.URL() != "":
		d.ok("certificates say to ask about revocation at %s", authority.URL())
	case !authority.URLChosen():
		d.advise("ca", "postern ca url http://HOST, by which others reach this server", "certificates do not say where to ask about their revocation")
	}
	for _, role := range unlisted(authority) {
		d.advise("ca", ca.NewIntermediateCommand(role), "the %s CA was made before that address was known: should it be revoked, who checks is not told where", role)
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
	if _, err := adaptFile(filepath.Join(dir, configFile)); err != nil && !errors.Is(err, fs.ErrNotExist) && postern.CodeOf(err) != postern.NotFound {
		d.failed("configuration", err, "mend the file; the server goes on with the one before")
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
	d.unconfirmed(hostApplier())
	report, err := sshd.Auditor{TimeCodes: d.timeCodes}.Audit(ctx)
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
func (d *doctor) unconfirmed(applier sshd.Applier) {
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
