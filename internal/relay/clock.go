package relay

import (
	"time"

	"github.com/postern-project/postern"
)

// ClockDetail is the detail of an event from a host whose clock was wrong: by how much,
// as "2h0m0s ahead". The event's time is corrected by it.
const ClockDetail = "clock"

// clockTolerance is how far a host's clock may be off before its events say so. A batch
// is on its way for a while, too.
const clockTolerance = 2 * time.Minute

// clock is how wrong a sender's clock is: 0 if it is right, or not known.
type clock struct{ ahead time.Duration }

// clockOf compares the sender's time with the server's.
func clockOf(sender, now time.Time) clock {
	ahead := sender.Sub(now).Round(time.Second)
	if sender.IsZero() || ahead.Abs() <= clockTolerance {
		return clock{}
	}
	return clock{ahead}
}

// mark says on an event that the clock was wrong.
func (c clock) mark(e *postern.Event) {
	if c.ahead == 0 {
		return
	}
	if e.Details == nil {
		e.Details = map[string]string{}
	}
	word := " ahead"
	if c.ahead < 0 {
		word = " behind"
	}
	e.Details[ClockDetail] = c.ahead.Abs().String() + word
}
