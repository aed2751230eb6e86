package relay

import (
	"time"

	"github.com/postern-project/postern"
)

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

// mark says on an event that the clock was wrong, see [postern.DetailClock].
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
	e.Details[postern.DetailClock] = c.ahead.Abs().String() + word
}
