// Package doctor examines this host: the state directory, its key and database, the
// timeline, the certificate authority, a running server, two-factor SSH and whether
// libvirt can be watched. It changes nothing.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/internal/terminal"
	"github.com/postern-project/postern/internal/trace/capture"
)

// Host is what to examine.
type Host struct {
	Dir     string        // the state directory
	CA      ca.Config     // access to keys that are not in the state
	SSH     setup.Applier // where a new configuration of sshd waits to be confirmed
	Auditor audit.Auditor // of SSH
}

// Finding is one thing that could be better on this host, and what to do.
type Finding struct {
	Part    string `json:"part"`
	Problem string `json:"problem"`
	Fix     string `json:"fix"`
	Advice  bool   `json:"advice,omitempty"` // nothing is broken; it could be better
	Err     error  `json:"-"`                // the error that showed the problem, if there was one
}

// Report is what an examination found.
type Report struct {
	OK       []string  `json:"ok"`
	Findings []Finding `json:"findings"`
}

// Problems returns how many findings are more than advice.
func (r *Report) Problems() int {
	n := 0
	for _, f := range r.Findings {
		if !f.Advice {
			n++
		}
	}
	return n
}

// examiner looks at one part after the other.
type examiner struct {
	Host
	Report
	now time.Time
}

// Examine looks at every part of the host.
func Examine(ctx context.Context, h Host) *Report {
	d := &examiner{Host: h, Report: Report{OK: []string{}, Findings: []Finding{}}, now: time.Now()}
	d.clock()
	d.state(ctx)
	d.ssh(ctx)
	d.libvirt()
	return &d.Report
}

func (d *examiner) ok(format string, args ...any) {
	d.OK = append(d.OK, fmt.Sprintf(format, args...))
}

func (d *examiner) wrong(part, fix, format string, args ...any) {
	d.Findings = append(d.Findings, Finding{Part: part, Problem: fmt.Sprintf(format, args...), Fix: fix})
}

func (d *examiner) advise(part, fix, format string, args ...any) {
	d.Findings = append(d.Findings, Finding{Part: part, Problem: fmt.Sprintf(format, args...), Fix: fix, Advice: true})
}

// failed notes an error with its own hint as the fix.
func (d *examiner) failed(part string, err error, fix string) {
	d.Findings = append(d.Findings, Finding{
		Part: part, Problem: err.Error(), Fix: cmp.Or(postern.HintOf(err), fix),
		Err: err,
	})
}

// clock asks the kernel whether a service keeps the clock right: certificates
// and one-time passwords depend on it.
func (d *examiner) clock() {
	synchronized, _, err := system.ClockState()
	switch {
	case err != nil:
		d.failed("clock", err, "")
	case !synchronized:
		d.advise("clock", "run a time service: apt install chrony",
			"no service keeps it synchronised; certificates and codes depend on it")
	default:
		d.ok("the clock is synchronised")
	}
}

// state looks at the state directory and what is in it.
func (d *examiner) state(ctx context.Context) {
	dir := d.Dir
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.wrong("state", "take its permissions from others: chmod 700 "+dir, "%s can be looked into by others", dir)
	}
	st, err := state.Open(ctx, dir)
	if err != nil {
		d.failed("state", err, "create the state directory")
		return
	}
	defer st.Close()
	d.ok("the database in %s opens", dir)
	if st.Rekeying() {
		d.wrong("key", "finish changing the key", "a change of the key-encrypting key was not finished")
	}
	d.disk(dir)
	if err := st.Store.TryWrite(ctx); err != nil {
		d.failed("database", err, "check that the database may be written to")
	}
	if err := st.CheckRestored(ctx); err != nil {
		d.failed("restored", err, "accept the restored state, which disables what may have been used since")
	}
	d.log(ctx, st)
	d.size(ctx, st)
	d.witnesses(ctx, st)
	d.following(ctx, st)
	d.authority(ctx, st)
	d.directory(ctx, st)
	d.server(dir)
}

// disk checks the free space.
func (d *examiner) disk(dir string) {
	const least = 256 << 20
	if free, ok := system.Free(dir); ok && free < least {
		d.wrong("disk", "free space on the disk of "+dir,
			"only %d MiB are left; on a full disk no code is accepted, nothing is issued, and guarded locations pass "+
				"people without a record unless they say: audit required", free>>20)
	}
}

func (d *examiner) log(ctx context.Context, st *state.State) {
	report, err := st.VerifyRecent(ctx)
	switch {
	case err != nil:
		d.failed("timeline", err, "verify the timeline")
	case len(report.Problems) > 0:
		d.wrong("timeline", "verify the timeline", "the check found %s",
			terminal.Counted(len(report.Problems), "problem"))
	case report.From > 0:
		d.ok("the timeline verifies from entry %d on, where the last verification ended: %s", report.From,
			terminal.Counted(report.Size, "entry"))
	default:
		d.ok("the timeline verifies: %s", terminal.Counted(report.Size, "entry"))
	}
}

// size says what the database holds.
func (d *examiner) size(ctx context.Context, st *state.State) {
	bytes, err := st.Store.Bytes(ctx)
	if err != nil {
		d.failed("database", err, "")
		return
	}
	kept, err := st.Store.Kept(ctx)
	if err != nil {
		d.failed("database", err, "")
		return
	}
	words := make([]string, len(kept))
	for i, k := range kept {
		words[i] = fmt.Sprintf("%s: %d", k.What, k.Count)
	}
	d.ok("the database has %d MiB; %s", bytes>>20, strings.Join(words, ", "))
}

// witnesses says up to where the timeline is witnessed.
func (d *examiner) witnesses(ctx context.Context, st *state.State) {
	list, err := st.Store.Timeline().Witnesses(ctx)
	if err != nil {
		d.failed("timeline", err, "verify the timeline")
	}
	for _, w := range list {
		if w.Problem == "" {
			d.ok("%s", w)
			continue
		}
		d.wrong("timeline", "ask who runs the witness; if the timeline is not the one that it saw, keep the database, "+
			"and find out who restored or changed it", "%s", w)
	}
}

// following says whether a server of this state reads what sshd logs.
func (d *examiner) following(ctx context.Context, st *state.State) {
	last, err := server.SSHLog(ctx, st)
	switch {
	case err != nil:
		d.failed("timeline", err, "verify the timeline")
	case last.Outcome == postern.Failed:
		d.advise("ssh", "see that the journal, or /var/log/auth.log, is there for the server to read",
			"the server has not read sshd's log since %s: %s", last.Time.Format(time.DateTime), last.Reason)
	}
}

// soon is how long before its end a certificate is mentioned.
const soon = 14 * 24 * time.Hour

func (d *examiner) authority(ctx context.Context, st *state.State) {
	authority, err := ca.Open(ctx, d.CA, st.Store.CA())
	if err != nil {
		d.failed("ca", err, "create the certificate authority")
		return
	}
	d.hardware(ctx, authority)
	for _, i := range authority.Issuers() {
		if i.Role == ca.Root && authority.HasKey(i.ID) && i.KeyURI == "" {
			d.advise("ca", "export the root's key, keep the file elsewhere, then remove the key",
				"the root's key is on this machine (%s); kept elsewhere it cannot be stolen from here", i.ID)
		}
	}
	d.roots(ctx, authority)
	d.intermediates(authority)
	d.address(authority)
	d.certificates(ctx, authority)
}

// rootSoon is how long before its end a root is mentioned: its successor has to be
// installed wherever it is trusted.
const rootSoon = 365 * 24 * time.Hour

// roots looks at the newest root, and at what is left to do until an older one can be
// retired.
func (d *examiner) roots(ctx context.Context, authority *ca.Authority) {
	if root := authority.Root(); root.NotAfter.Before(d.now.Add(rootSoon)) {
		d.wrong("ca", "make the next root, and install it wherever this one is",
			"the root ends on %s, and with it everything that was issued under it",
			root.NotAfter.Format(time.DateOnly))
	}
	anchors, err := authority.Anchors(ctx)
	if err != nil {
		d.failed("ca", err, "")
		return
	}
	for _, a := range anchors {
		switch {
		case a.Status != "trusted":
		case a.Certificates > 0:
			d.ok("%s of %s are valid: it is not retired yet, and another CA has followed it",
				terminal.Counted(a.Certificates, "certificate"), a.ID)
		default:
			d.advise("ca", "retire "+a.ID, "another CA has followed %s, and none of its certificates is valid", a.ID)
		}
	}
}

func (d *examiner) intermediates(authority *ca.Authority) {
	for _, role := range []ca.Role{ca.Server, ca.Client} {
		trusted, fix := authority.Trusted(role), nextIntermediate(role)
		switch {
		case len(trusted) == 0:
			d.wrong("ca", fix, "every %s CA was revoked or has expired: none issues", role)
		case authority.EndsWithRoot(role): // the root is what ends
		case trusted[len(trusted)-1].NotAfter.Before(d.now.Add(90 * 24 * time.Hour)):
			d.wrong("ca", fix, "the %s CA ends on %s", role, trusted[len(trusted)-1].NotAfter.Format(time.DateOnly))
		}
	}
}

// address looks at where certificates say to ask about their revocation.
func (d *examiner) address(authority *ca.Authority) {
	switch {
	case authority.URL() != "":
		d.ok("certificates say to ask about revocation at %s", authority.URL())
	case !authority.URLChosen():
		d.advise("ca", "choose the address by which others reach this server",
			"certificates do not say where to ask about their revocation")
	}
	for _, role := range authority.Unlisted() {
		d.advise("ca", nextIntermediate(role),
			"the %s CA was made before that address was known: it does not say where to ask about its own revocation",
			role)
	}
}

// certificates looks for those that end soon.
func (d *examiner) certificates(ctx context.Context, authority *ca.Authority) {
	list, err := authority.Certificates(ctx, ca.Filter{Valid: d.now})
	if err != nil {
		d.failed("ca", err, "")
		return
	}
	ending := 0
	for _, c := range list {
		if c.Profile != ca.ProfileOCSP && c.NotAfter.Before(d.now.Add(soon)) {
			ending++
			d.advise("certificate", "renew certificate "+c.Serial,
				"%s (%s) ends on %s", c.Subject, c.Serial, c.NotAfter.Format(time.DateOnly))
		}
	}
	if ending == 0 {
		d.ok("none of %s ends within 14 days", terminal.Counted(len(list), "certificate"))
	}
}

// hardware looks for the keys that are in hardware key stores.
func (d *examiner) hardware(ctx context.Context, authority *ca.Authority) {
	for _, i := range authority.Issuers() {
		switch err := authority.CheckKey(ctx, i.ID); {
		case i.KeyURI == "":
		case err != nil:
			d.failed("ca", fmt.Errorf("the %s CA: %w", i.ID, err), "")
		default:
			d.ok("the key of the %s CA is in its HSM", i.ID)
		}
	}
}

func (d *examiner) server(dir string) {
	pid, err := state.ServedBy(dir)
	if err != nil {
		d.advise("server", "start the server", "no server runs on %s", dir)
		return
	}
	d.ok("process %d serves %s", pid, dir)
	if err := server.CheckConfig(filepath.Join(dir, server.ConfigFile)); err != nil && !errors.Is(err,
		fs.ErrNotExist) && postern.CodeOf(err) != postern.NotFound {
		d.failed("configuration", err, "fix the file; the server keeps the configuration from before")
	}
}

// ssh runs the auditor's look where sshd is installed and may be asked.
func (d *examiner) ssh(ctx context.Context) {
	if _, err := exec.LookPath("/usr/sbin/sshd"); err != nil {
		return
	}
	if os.Geteuid() != 0 {
		d.advise("ssh", "audit SSH as root", "only root can read the configuration of sshd")
		return
	}
	d.unconfirmed()
	report, err := d.Auditor.Audit(ctx)
	if err != nil {
		d.advise("ssh", "audit SSH", "sshd's configuration cannot be audited: %s", err)
		return
	}
	if len(report.Findings) == 0 {
		d.ok("nothing is wrong with two-factor SSH")
		return
	}
	for _, f := range report.Findings {
		d.wrong("ssh", "audit SSH", "%s: %s (%s)", f.Severity, f.Title, f.Where)
	}
}

// unconfirmed looks for a configuration of sshd that no login has confirmed, such
// as one that a crash kept from being put back.
func (d *examiner) unconfirmed() {
	dir, err := d.SSH.Pending()
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
	case err != nil:
		d.failed("ssh", err, "see what is in "+d.SSH.Dir)
	default:
		d.wrong("ssh", "confirm the configuration of sshd, or put back "+dir,
			"sshd's new configuration waits for a login to confirm it; after a crash of the host, "+
				"postern-ssh-config.service puts it back")
	}
}

// libvirt says whether its probes can be read, where there is a libvirt.
func (d *examiner) libvirt() {
	files, err := capture.Ready()
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
	case err != nil:
		d.advise("libvirt", postern.HintOf(err), "libvirt cannot be watched: %s", err)
	default:
		d.ok("libvirt can be watched (%s with probes)", terminal.Counted(files, "file"))
	}
}

// nextIntermediate says what to do for a role without an intermediate.
func nextIntermediate(role ca.Role) string { return fmt.Sprintf("make the next %s intermediate", role) }
