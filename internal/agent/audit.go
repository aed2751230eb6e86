package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/system"
)

// When a host is audited: daily, and when what is judged has changed.
const (
	auditEvery = 24 * time.Hour
	lookEvery  = 15 * time.Second
)

// judged are the files and directories by which the audit judges a host.
var judged = []string{
	"/etc/ssh", "/etc/pam.d", "/etc/pam.conf", "/etc/security", "/etc/passwd", "/etc/group", "/etc/shadow",
	"/etc/nsswitch.conf", "/etc/postern", "/etc/yubikey_mappings", "/root/.ssh",
}

// maxJudged bounds how many files are looked at.
const maxJudged = 10000

// fingerprint says whether files below paths have changed: by names, sizes, owners, modes
// and times.
func fingerprint(paths []string) string {
	sum, n := sha256.New(), 0
	for _, root := range paths {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if n++; err != nil || n > maxJudged {
				return fs.SkipDir
			}
			if info, err := d.Info(); err == nil {
				uid, gid, _ := system.Owner(info)
				inode, _ := system.Inode(info)
				fmt.Fprintf(sum, "%q %v %d %d %d %d %d\n", path, info.Mode(), info.Size(),
					info.ModTime().UnixNano(), uid, gid, inode)
			}
			return nil
		})
	}
	return string(sum.Sum(nil))
}

// findings are what the newest audit of a host found. It is safe for concurrent use.
type findings struct {
	mu    sync.Mutex
	first chan struct{} // closed when there are some
	list  []string
}

func newFindings() *findings { return &findings{first: make(chan struct{})} }

// lines returns what the newest audit found, in a line each, without what is of low
// severity. It waits for the first audit, or until ctx ends.
func (f *findings) lines(ctx context.Context) []string {
	select {
	case <-f.first:
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

// keep keeps what an audit found, or why there was none.
func (f *findings) keep(r *audit.Report, err error) {
	var list []string
	if err != nil {
		list = []string{"the audit of sshd: " + err.Error()}
	} else {
		for _, each := range r.Findings {
			line := string(each.Severity) + ": " + each.Title
			if each.Severity != audit.Low && !slices.Contains(list, line) {
				list = append(list, line)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.first:
	default:
		close(f.first)
	}
	f.list = list
}

// auditor audits this host and reports what it finds, when that is another result than
// last time.
type auditor struct {
	Config
	report   *reporter
	findings *findings
	last     string // the file of what was found last
	audit    func(context.Context) (*audit.Report, error)
}

// run audits until ctx ends.
func (a auditor) run(ctx context.Context, paths []string) {
	var seen string
	var at time.Time
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if now := fingerprint(paths); now != seen || time.Since(at) > auditEvery {
			seen, at = now, time.Now()
			a.once(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// once audits once.
func (a auditor) once(ctx context.Context) {
	found, err := a.audit(ctx)
	if ctx.Err() != nil {
		return
	}
	a.findings.keep(found, err)
	if err != nil {
		a.Log.WarnContext(ctx, "two-factor SSH is not audited", slog.Any(postern.LogError, err))
		return
	}
	wrong := found.Summary()
	if was, err := os.ReadFile(a.last); err == nil && string(was) == wrong || err != nil && wrong == "" {
		return
	}
	e := postern.Event{
		Time: time.Now().UTC(), Kind: postern.EventCheckSSH, Outcome: postern.OK, Host: a.Host, Object: a.Host,
		Reason: wrong,
	}
	if wrong != "" {
		e.Outcome = postern.Failed
	}
	a.report.event(e)
	if err := durable.Replace(a.last, []byte(wrong), 0o600); err != nil {
		a.Log.WarnContext(ctx, "what the audit found is reported again after a restart",
			slog.Any(postern.LogError, err))
	}
}
