package report

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"
)

// group is a set of lanes: by daemon, client or machine.
type group struct{ lanes map[string]*lane }

// lane sums up what happened to one of them.
type lane struct {
	key                 string
	calls, failed, open int64
	took                time.Duration
	longest             longest
	said                []*command // to its monitor, for no call
	load                load
}

const (
	maxLanes = 64 // of a group that are told apart; the calls of others are in one lane
	keptBars = 400
	others   = "others"
)

func key(pid int) string { return strconv.Itoa(pid) }

// lane returns the lane of that key.
func (g *group) lane(key string) *lane {
	l := g.lanes[key]
	if l != nil {
		return l
	}
	if len(g.lanes) >= maxLanes {
		key = others
	}
	if l = g.lanes[key]; l == nil {
		l = &lane{key: key, longest: longest{limit: keptBars}}
		g.lanes[key] = l
	}
	return l
}

// sorted returns the lanes, those first that took the most time.
func (g *group) sorted() []*lane {
	return slices.SortedFunc(maps.Values(g.lanes), func(a, b *lane) int {
		return cmp.Or(cmp.Compare(b.open, a.open), cmp.Compare(b.took, a.took), cmp.Compare(a.key, b.key))
	})
}

// count counts a call that began so many nanoseconds after the beginning.
func (l *lane) count(c *call, from uint64) {
	l.calls++
	l.took += c.took
	if c.failed {
		l.failed++
	}
	if c.open {
		l.open++
	}
	l.load.add(from, from+uint64(c.took), c.failed)
}

// say keeps a command that was sent for no call.
func (l *lane) say(c *command) {
	if len(l.said) < keptBars {
		l.said = append(l.said, c)
	}
}

// parts is how many parts of equal length a lane's time has: a power of two.
const parts = 512

// load is how much ran at once in each part of the time.
type load struct {
	width  uint64 // of a part, in nanoseconds; 0 means 0.1 ms
	busy   [parts]uint64
	failed [parts]bool
}

// add adds something that ran between two moments, nanoseconds from the beginning.
func (l *load) add(from, to uint64, failed bool) {
	if l.width == 0 {
		l.width = 1e5
	}
	for to/l.width >= parts {
		l.double()
	}
	for i := from / l.width; i <= to/l.width; i++ {
		l.busy[i] += min(to, (i+1)*l.width) - max(from, i*l.width)
	}
	if failed {
		l.failed[to/l.width] = true
	}
}

// double makes parts twice as long.
func (l *load) double() {
	for i := range parts / 2 {
		l.busy[i] = l.busy[2*i] + l.busy[2*i+1]
		l.failed[i] = l.failed[2*i] || l.failed[2*i+1]
	}
	clear(l.busy[parts/2:])
	clear(l.failed[parts/2:])
	l.width *= 2
}

// until returns how much ran at once on average, and whether something failed, in the
// parts of the time until the end.
func (l *load) until(end uint64) (busy []float64, failed []bool) {
	if l.width == 0 {
		return nil, nil
	}
	for (end-1)/l.width >= parts {
		l.double()
	}
	n := int((end-1)/l.width) + 1
	busy = make([]float64, n)
	for i := range busy {
		width := min(l.width, end-uint64(i)*l.width)
		busy[i] = float64(l.busy[i]) / float64(width)
	}
	return busy, l.failed[:n]
}
