package capture

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// Library is a file of libvirt's that is mapped by processes or stands where
// distributions put it.
type Library struct {
	Path    string // as the first process that maps it sees it
	PIDs    []int  // processes that have it mapped
	BuildID string
	Machine string
	Probes  []usdt.Probe
	Err     error // why it cannot be read; usdt.ErrNoProbes when it carries none
	id      fileID
}

// fileID identifies a file, also one that reuses the inode of another.
type fileID struct {
	dev, ino uint64
	size     int64
	mtime    int64
}

// Missing returns the probes that Postern knows, that belong in a file of this
// kind, and that are not in it.
func (l *Library) Missing() []string {
	if l.Err != nil && !errors.Is(l.Err, usdt.ErrNoProbes) {
		return nil
	}
	has := map[string]bool{}
	for _, p := range l.Probes {
		has[p.Name] = true
	}
	var out []string
	for _, name := range event.Names() {
		if !has[name] && belongs(name, path.Base(l.Path)) {
			out = append(out, name)
		}
	}
	return out
}

// daemons are those with the RPC server's authentication in them: virtlogd and
// virtlockd have none.
var daemons = []string{
	"libvirtd", "virtqemud", "virtnetworkd", "virtnodedevd", "virtstoraged", "virtsecretd", "virtnwfilterd",
	"virtinterfaced", "virtlxcd", "virtxend", "virtvboxd", "virtbhyved", "virtvzd", "virtchd", "virtproxyd",
}

// belongs reports whether libvirt's sources have a probe in a file of that name.
func belongs(probe, file string) bool {
	switch {
	case strings.HasPrefix(file, "libvirt.so"):
		return !strings.HasPrefix(probe, "qemu_monitor_") && !strings.HasPrefix(probe, "rpc_server_client_auth_")
	case strings.HasPrefix(file, "libvirt_driver_qemu"):
		return strings.HasPrefix(probe, "qemu_monitor_")
	case slices.Contains(daemons, file):
		return strings.HasPrefix(probe, "rpc_server_client_auth_")
	}
	return false
}

// Watched returns how many files with probes a session watches, and how many processes
// have them mapped.
func (s *Session) Watched() (files, processes int) {
	pids := map[int]bool{}
	for _, l := range s.Libraries() {
		if l.Err == nil {
			files++
		}
		for _, pid := range l.PIDs {
			pids[pid] = true
		}
	}
	return files, len(pids)
}
