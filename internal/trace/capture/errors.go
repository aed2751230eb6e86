//go:build linux

package capture

import (
	"errors"
	"strings"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/trace/bpf"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// noProbes explains why nothing could be attached.
func noProbes(c Config, libs []*Library) error {
	var bare, broken []string
	for _, l := range libs {
		if errors.Is(l.Err, usdt.ErrNoProbes) {
			bare = append(bare, l.Path)
		} else if l.Err != nil {
			broken = append(broken, l.Path+": "+l.Err.Error())
		}
	}
	switch {
	case len(broken) > 0:
		return postern.Errorf(postern.Unavailable, "libvirt's files cannot be read: %s", strings.Join(broken, "; "))
	case len(bare) > 0:
		return postern.Errorf(postern.Unavailable, "this build of libvirt has no probes: %s",
			strings.Join(bare, ", ")).
			WithHint("libvirt must be built with dtrace support (-Ddtrace=enabled), as Debian, Ubuntu, Fedora and " +
				"RHEL do")
	case len(c.Filter.PIDs) > 0:
		return postern.Errorf(postern.NotFound, "no process of those named has libvirt mapped").
			WithHint("list the files of libvirt and the processes that have them mapped")
	case len(c.Paths) > 0:
		return postern.Errorf(postern.NotFound, "no such file: %s", strings.Join(c.Paths, ", "))
	}
	if !bpf.CanInspect() {
		return postern.Errorf(postern.Denied,
			"no libvirt can be seen: looking into other processes needs CAP_SYS_PTRACE").
			WithHint("run it as root, or name libvirt's files")
	}
	return postern.Errorf(postern.NotFound, "no libvirt on this host").
		WithHint("install libvirt (Debian: apt install libvirt-daemon-system), or name its files; in a container, " +
			"trace from the host or start it with --pid host")
}

// Ready reports whether this process could watch libvirt here, and how many
// files with probes there are. It attaches to nothing. The errors are those of
// [Start].
func Ready() (files int, err error) {
	libs, err := Find(Config{})
	if err != nil {
		return 0, err
	}
	for _, l := range libs {
		if l.Err == nil {
			files++
		}
	}
	if files == 0 {
		return 0, noProbes(Config{}, libs)
	}
	return files, bpf.Preflight()
}
