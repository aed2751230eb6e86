package sshd

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// clockSlack is how far off a clock may be before codes that live 30 seconds
// are refused, or live too long.
const clockSlack = 15 * time.Second

// kernelClock asks the kernel how well its clock is kept.
func kernelClock() Clock {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}
	}
	return Clock{
		Synchronized: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		Offset:       time.Duration(t.Esterror) * time.Microsecond,
	}
}

// judgeClock matters where codes depend on the time.
func (a *audit) judgeClock(clock func() Clock) {
	i := slices.IndexFunc(a.stack, func(l pamLine) bool { return l.module == "pam_google_authenticator" || l.module == "pam_oath" })
	if i < 0 {
		return
	}
	c := clock()
	f := Finding{Where: a.stack[i].Line, Proof: "timedatectl timesync-status; chronyc tracking", Mend: "run an NTP client"}
	switch {
	case c.Offset > clockSlack:
		f.ID, f.Severity = "clock-off", High
		f.Title = fmt.Sprintf("the clock is off by up to %v: codes that depend on it are refused, or live longer than they should", c.Offset.Round(time.Second))
	case !c.Synchronized:
		f.ID, f.Severity, f.Title = "clock-free", Medium, "nothing keeps the clock right, and codes depend on it"
	default:
		return
	}
	a.add(f)
}
