package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/process"
)

// Applier puts a setup's files in place, and removes them again unless a new
// login confirms that they work.
type Applier struct {
	Root string // below this directory instead of /
	Dir  string // where backups go, one directory each
	// Check reports whether the files that are in place are right: whether sshd
	// takes them, and whether they do what they are for.
	Check func(ctx context.Context) error
	// Test fails with [ErrRefused] where sshd would not take the files that are in
	// place. It changes nothing.
	Test func(ctx context.Context) error
	// Reload makes sshd read them, if it runs and would take them.
	Reload func(ctx context.Context) error
	Now    func() time.Time // nil means the system's clock

	step func() // called before each change; for tests, which end there
}

// next begins a change.
func (a Applier) next() {
	if a.step != nil {
		a.step()
	}
}

// manifest is what a backup directory's file of that name says.
type manifest struct {
	Applied time.Time     `json:"applied"`
	Boot    string        `json:"boot"`            // boot ID, for
	Uptime  float64       `json:"uptime"`          // seconds since boot when it was applied
	Files   []backedUp    `json:"files"`           // in the order of writing
	Until   time.Duration `json:"until,omitempty"` // nanoseconds that a confirmation may take
	// Refused is why sshd did not take what was in place before; "" if it did.
	Refused string `json:"refused,omitempty"`
}

type backedUp struct {
	Path   string      `json:"path"`
	Absent bool        `json:"absent,omitempty"` // the file was not there
	Copy   string      `json:"copy,omitempty"`   // its name in the backup directory
	Mode   fs.FileMode `json:"mode,omitempty"`
}

// Names in a backup directory.
const (
	manifestFile = "manifest.json"
	decisionLink = "decision" // a symbolic link to one of:
	confirmed    = "confirmed"
	rollingBack  = "rolling-back" // begun; a crash may have ended it
	rolledBack   = "rolled-back"
)

// Apply backs up what the files replace, writes them, and has sshd check and
// read them. On any error everything is as it was. It returns the backup's
// directory: call RollBack with it when patience ends, unless Confirmed. The
// backup is on disk before anything changes, so RollBackOverdue finds it after
// a crash. It fails with postern.Conflict while another setup waits.
func (a Applier) Apply(ctx context.Context, files []File, until time.Duration) (string, error) {
	if dir, err := a.Pending(); err == nil {
		return "", postern.Errorf(postern.Conflict, "the configuration applied before waits to be confirmed").
			WithHint("confirm the configuration of sshd, or put back %s", dir)
	}
	now := time.Now
	if a.Now != nil {
		now = a.Now
	}
	dir := filepath.Join(a.Dir, now().UTC().Format("20060102T150405.000000"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	m := manifest{Applied: now().UTC(), Boot: process.This("").Boot, Uptime: process.Uptime(), Until: until}
	for i, f := range files {
		b, err := a.backUp(dir, i, f)
		if err != nil {
			return "", fmt.Errorf("back up %s: %w", f.Path, err)
		}
		m.Files = append(m.Files, b)
	}
	if err := a.Test(ctx); errors.Is(err, ErrRefused) {
		m.Refused = err.Error()
	}
	a.next()
	if err := writeManifest(dir, m); err != nil {
		return "", err
	}
	if err := a.write(ctx, files); err != nil {
		// sshd has read nothing of it: what it goes on with is not touched.
		return "", errors.Join(err, a.putBack(dir, m), a.finish(dir))
	}
	a.next()
	if err := a.Reload(ctx); err != nil {
		return "", errors.Join(err, a.RollBack(context.WithoutCancel(ctx), dir))
	}
	return dir, nil
}

func (a Applier) write(ctx context.Context, files []File) error {
	for _, f := range files {
		a.next()
		if err := a.put(f); err != nil {
			return err
		}
	}
	return a.Check(ctx)
}

func (a Applier) put(f File) error {
	path := hostconf.Files{Root: a.Root}.Path(f.Path)
	if f.Absent {
		return durable.Remove(path)
	}
	return replaceFile(path, f.Content, f.Mode)
}

// Keep is Apply for files that need no login to confirm them: they stay, unless sshd
// would not take them. What an earlier call left behind that was killed is put back
// first. It returns the backup's directory.
func (a Applier) Keep(ctx context.Context, files []File) (string, error) {
	if _, err := a.RollBackOverdue(ctx); err != nil {
		return "", err
	}
	dir, err := a.Apply(ctx, files, 0)
	if err != nil {
		return "", err
	}
	return dir, claim(dir, confirmed)
}

func (a Applier) backUp(dir string, i int, f File) (backedUp, error) {
	path := hostconf.Files{Root: a.Root}.Path(f.Path)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return backedUp{Path: f.Path, Absent: true}, nil
	}
	if err != nil {
		return backedUp{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return backedUp{}, err
	}
	out := backedUp{Path: f.Path, Copy: strconv.Itoa(i) + "-" + filepath.Base(f.Path), Mode: st.Mode().Perm()}
	return out, replaceFile(filepath.Join(dir, out.Copy), b, 0o600)
}

// RollBack puts everything back as the backup has it, and has sshd read it, once.
// An interrupted one is repeated. sshd is not reloaded if it would refuse the
// configuration. If it would have refused the old one, too, the roll-back ends with an
// error that says why, and sshd keeps the configuration that it has loaded.
func (a Applier) RollBack(ctx context.Context, dir string) error {
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	if err := a.putBack(dir, m); err != nil {
		return err
	}
	a.next()
	err = a.Reload(ctx)
	switch {
	case errors.Is(err, ErrRefused) && m.Refused != "":
		err = fmt.Errorf(
			"the old files are back, which sshd refused before, too; it goes on with what it has read: %w", err)
		return errors.Join(err, a.finish(dir))
	case err != nil:
		return fmt.Errorf("the old files are back, but sshd has not read them: %w", err)
	}
	return a.finish(dir)
}

// putBack decides for the old files, and puts them back.
func (a Applier) putBack(dir string, m manifest) (err error) {
	if decision(dir) != rollingBack {
		a.next()
		if err := claim(dir, rollingBack); err != nil {
			return err
		}
	}
	for _, f := range m.Files {
		a.next()
		path := hostconf.Files{Root: a.Root}.Path(f.Path)
		if f.Absent {
			err = durable.Remove(path)
		} else {
			var b []byte
			if b, err = os.ReadFile(filepath.Join(dir, f.Copy)); err == nil {
				err = replaceFile(path, b, f.Mode)
			}
		}
		if err != nil {
			return fmt.Errorf("put %s back from %s: %w", f.Path, dir, err)
		}
	}
	return nil
}

// finish says that a roll-back came to its end.
func (a Applier) finish(dir string) error {
	a.next()
	next := filepath.Join(dir, rolledBack)
	if err := os.Symlink(rolledBack, next); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	err := os.Rename(next, filepath.Join(dir, decisionLink))
	if err != nil && decision(dir) != rolledBack { // else another process did the same
		return err
	}
	return durable.SyncDir(dir)
}

// RollBackOverdue rolls back a setup that was not confirmed in time and that no process
// waits for any more: one of an earlier boot that ended before its time was over, or one
// whose time is over. It returns the backup's directory, "" if there was nothing to do.
func (a Applier) RollBackOverdue(ctx context.Context) (string, error) {
	dir, m, err := a.pending()
	if postern.CodeOf(err) == postern.NotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if m.Boot == process.This("").Boot && process.Uptime() < m.Uptime+m.Until.Seconds() &&
		decision(dir) != rollingBack {
		return "", nil
	}
	return dir, a.RollBack(ctx, dir)
}

// claim decides between confirming and rolling back, once and for all.
func claim(dir, as string) error {
	// A link appears or it does not, and only one can have the name.
	if err := os.Symlink(as, filepath.Join(dir, decisionLink)); err != nil {
		if decided := decision(dir); decided != "" {
			return postern.Errorf(postern.Conflict, "%s is %s already", dir, decided)
		}
		return err
	}
	return durable.SyncDir(dir)
}

// decision returns what was decided about a backup, "" for nothing yet.
func decision(dir string) string {
	decided, _ := os.Readlink(filepath.Join(dir, decisionLink))
	return decided
}

// Confirmed reports whether a login confirmed the setup of a backup.
func (a Applier) Confirmed(dir string) bool { return decision(dir) == confirmed }

// Confirm keeps the newest setup, for the process pid: it has to run in an SSH
// login that began after the setup was applied.
func (a Applier) Confirm(pid int) (string, error) {
	dir, m, err := a.pending()
	if err != nil {
		return "", err
	}
	login, ok := process.SSHLogin(pid)
	if !ok {
		return "", postern.Errorf(postern.Denied, "this is no SSH login").
			WithHint("log in by SSH from another terminal, and confirm there")
	}
	if m.Boot == process.This("").Boot && process.StartedAt(login) < m.Uptime {
		return "", postern.Errorf(postern.Denied, "this SSH login is older than the new configuration").
			WithHint("log in by SSH once more, and confirm there")
	}
	return dir, claim(dir, confirmed)
}

// Pending returns the backup of a setup that no login has confirmed, and that
// was not put back: NotFound if there is none.
func (a Applier) Pending() (string, error) {
	dir, _, err := a.pending()
	return dir, err
}

// pending returns the newest backup if nothing was decided about it, or if it
// was not put back to the end.
func (a Applier) pending() (string, manifest, error) {
	all, _ := filepath.Glob(filepath.Join(a.Dir, "*", manifestFile)) // sorted
	if len(all) == 0 {
		return "", manifest{}, postern.Errorf(postern.NotFound, "no configuration waits to be confirmed")
	}
	dir := filepath.Dir(all[len(all)-1])
	if decided := decision(dir); decided != "" && decided != rollingBack {
		return "", manifest{}, postern.Errorf(postern.NotFound,
			"no configuration waits to be confirmed: the last one was %s", decided)
	}
	m, err := readManifest(dir)
	return dir, m, err
}

func readManifest(dir string) (manifest, error) {
	var m manifest
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

func writeManifest(dir string, m manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(dir, manifestFile), b, 0o600); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// replaceFile writes a file in one step, durably. One that exists keeps its
// owner and mode.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return durable.Replace(path, content, mode, durable.KeepOwner)
}
