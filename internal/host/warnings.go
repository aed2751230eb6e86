package host

import (
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern"
)

// Info is a host with what an administrator should look at.
type Info struct {
	postern.Host
	Warnings []string `json:"warnings,omitempty"` // what the server finds; Problems is what the host does
}

// Late is after what time a host that has not reported is late. Hosts report each minute.
const Late = 5 * time.Minute

// Now is what hosts are compared with.
type Now struct {
	Time    time.Time
	Version string // of the server; "" is not compared
	KRL     int64  // version of the SSH revocation list
}

// Look returns a host with what an administrator should look at.
func (n Now) Look(h postern.Host) Info {
	i := Info{Host: h}
	warn := func(format string, args ...any) { i.Warnings = append(i.Warnings, fmt.Sprintf(format, args...)) }
	if h.Status != postern.HostJoined {
		return i
	}
	last := h.Heard
	if last.Before(h.Joined) {
		last = h.Joined
	}
	if n.Time.Sub(last) >= Late {
		warn("has not reported since %s", last.UTC().Format(time.RFC3339))
	}
	if h.Heard.IsZero() {
		return i
	}
	if n.Version != "" && h.Version != n.Version {
		warn("runs version %s, the server %s", h.Version, n.Version)
	}
	if slices.Contains(h.Serves, "ssh") && h.KRL < n.KRL {
		warn("its SSH revocation list is not the newest")
	}
	return i
}
