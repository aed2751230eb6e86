package event

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern/internal/terminal"
)

// Loss is how many hits of one probe in one process never reached the tracer.
type Loss struct {
	PID   int
	Comm  string
	Probe string
	Lost  uint64
}

// Summary is what a trace saw and lost.
type Summary struct {
	Seen   uint64
	Losses []Loss        // the largest first
	Open   int           // calls that had no answer yet at its end
	Oldest time.Duration // the age of the oldest of them
}

// NewSummary returns a summary whose losses are given by process and probe, with
// Lost 0 in the keys.
func NewSummary(seen uint64, lost map[Loss]uint64) Summary {
	s := Summary{Seen: seen}
	for l, n := range lost {
		l.Lost = n
		s.Losses = append(s.Losses, l)
	}
	slices.SortFunc(s.Losses, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(b.Lost, a.Lost), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Probe, b.Probe))
	})
	return s
}

// String makes a summary readable.
func (s Summary) String() string {
	var lost uint64
	for _, l := range s.Losses {
		lost += l.Lost
	}
	text := terminal.Counted(s.Seen, "event") + " seen, none lost"
	if lost > 0 {
		text = fmt.Sprintf("%s seen, %d lost", terminal.Counted(s.Seen, "event"), lost)
	}
	if s.Open > 0 {
		text += fmt.Sprintf(", %s still open: the oldest for %v", terminal.Counted(s.Open, "call"),
			s.Oldest.Round(time.Millisecond))
	}
	return text
}
