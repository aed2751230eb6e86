package audit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/system"
)

// clockSlack is how far off a clock may be before codes that live 30 seconds
// are refused, or live too long.
const clockSlack = 15 * time.Second

// kernelClock is what the kernel knows of its clock.
func kernelClock() Clock {
	synchronized, offset, _ := system.ClockState()
	return Clock{Synchronized: synchronized, Offset: offset}
}

// timeCodes is what is known of pam_postern's codes by time.
type timeCodes int

const (
	timeCodesUnknown timeCodes = iota
	timeCodesUsed
	timeCodesUnused
)

func (a Auditor) timeCodes(ctx context.Context) timeCodes {
	if a.TimeCodes == nil {
		return timeCodesUnknown
	}
	switch used, err := a.TimeCodes(ctx); {
	case err != nil:
		return timeCodesUnknown
	case used:
		return timeCodesUsed
	}
	return timeCodesUnused
}

// judgeClock matters where codes depend on the time. pam_postern's do for those
// who have such a device.
func (a *audit) judgeClock(clock func() Clock, behindPostern timeCodes) {
	uses := func(modules ...string) int {
		return slices.IndexFunc(a.stack, func(l hostconf.PAMLine) bool { return slices.Contains(modules, l.Module) })
	}
	i, certain := uses("pam_google_authenticator", "pam_oath"), true
	if i < 0 && behindPostern != timeCodesUnused {
		i, certain = uses("pam_postern"), behindPostern == timeCodesUsed
	}
	if i < 0 {
		return
	}
	c := clock()
	f := Finding{
		Where: a.stack[i].Line,
		Proof: "timedatectl timesync-status; chronyc tracking",
		Fix:   "run an NTP client",
	}
	switch {
	case c.Offset > clockSlack:
		f.ID, f.Severity = "clock-off", High
		f.Title = fmt.Sprintf("the clock is off by up to %v: codes that depend on it are refused, or live longer "+
			"than they should", c.Offset.Round(time.Second))
	case !c.Synchronized:
		f.ID, f.Severity, f.Title = "clock-free", Medium, "nothing keeps the clock right, and codes depend on it"
	default:
		return
	}
	if !certain {
		f.Severity = Low
		f.Title += ", if a person here has an authenticator"
	}
	a.add(f)
}
