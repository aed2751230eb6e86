package agent

import (
	"path"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/sshd/process"
	"github.com/postern-project/postern/internal/trace/event"
)

// maxUnits bounds the processes that are remembered.
const maxUnits = 1 << 13

// units are the systemd units of clients, by process: cron's, a timer's, a service's. They
// are read when a client connects, since it may have ended when its call is answered.
type units map[started]string

// started is a process: its number, and its start time in clock ticks.
type started struct {
	pid   int
	start uint64
}

// see reads the unit of a client that was not seen before.
func (u units) see(p *event.Peer) {
	if p == nil || p.PID <= 0 || p.Start == 0 {
		return
	}
	id := started{p.PID, p.Start}
	if _, known := u[id]; known {
		return
	}
	unit := unitIn(process.File(p.PID, "cgroup"))
	if process.Stat(p.PID, 22) != strconv.FormatUint(p.Start, 10) {
		return // another process by now
	}
	if len(u) >= maxUnits {
		clear(u)
	}
	u[id] = unit
}

// of returns the unit of a client, "" for a login session and where it is not known.
func (u units) of(p *event.Peer) string { return u[started{p.PID, p.Start}] }

// unitIn returns the unit in /proc/PID/cgroup (cgroups(7)): the last name of the path that is
// a service or a scope. The scopes of login sessions are left out: their audit session says
// more (org.freedesktop.login1(5)).
func unitIn(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		controllers, dir, _ := strings.Cut(strings.TrimSpace(line), ":/")
		if controllers != "0:" && !strings.HasSuffix(controllers, "name=systemd") {
			continue
		}
		for dir = path.Clean("/" + dir); dir != "/"; dir = path.Dir(dir) {
			switch unit := path.Base(dir); {
			case strings.HasPrefix(unit, "session-") && strings.HasSuffix(unit, ".scope"):
				return ""
			case strings.HasSuffix(unit, ".service"), strings.HasSuffix(unit, ".scope"):
				return unit
			}
		}
	}
	return ""
}
