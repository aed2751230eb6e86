package top

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/format"
)

// Columns of a histogram: the name, numbers, and the bars, which take what is left of
// the terminal's width.
const (
	nameWidth    = 29
	numbersWidth = 26
	mostBars     = 64
	defaultWidth = 80
)

// blocks are bars of one line's height, the lowest first.
var blocks = []rune("▁▂▃▄▅▆▇█")

// histogram writes for each row how many of its calls took how long: a bar is for times
// around what the heading says, and as high as its share of the row's calls.
func (m *Model) histogram(w io.Writer) {
	width := m.width
	if width <= 0 {
		width = defaultWidth
	}
	axis := newAxis(m.rows, min(max(width-nameWidth-numbersWidth-1, 12), mostBars))
	fmt.Fprintf(w, "%-*s %8s %8s %8s %s\n", nameWidth, strings.ToUpper(m.By), "CALLS", "P50", "P99", axis.heading())
	for i := range m.rows {
		r := &m.rows[i]
		fmt.Fprintf(w, "%-*s %8d %8s %8s %s\n", nameWidth, clip(r.Name, nameWidth), r.Calls,
			format.Duration(r.Quantile(0.5)), format.Duration(r.Quantile(0.99)), axis.bars(r))
	}
	m.lost(w)
}

// clip cuts a name to so many characters, at its beginning: the ends of procedures'
// names differ.
func clip(name string, n int) string {
	r := []rune(name)
	if len(r) <= n {
		return name
	}
	return "…" + string(r[len(r)-n+1:])
}

// axis is a logarithmic axis of times whose ends are powers of ten.
type axis struct {
	from    time.Duration
	decades int
	decade  int // columns of each
}

// newAxis returns an axis for all calls of the rows, of at most so many columns.
func newAxis(rows []format.Row, columns int) axis {
	shortest, longest := time.Duration(math.MaxInt64), time.Microsecond
	for i := range rows {
		r := &rows[i]
		shortest, longest = min(shortest, r.Quantile(1/float64(max(r.Calls, 1)))), max(longest, r.Max)
	}
	power := func(d time.Duration, round func(float64) float64) int {
		return int(round(math.Log10(float64(max(d, time.Microsecond)) / float64(time.Microsecond))))
	}
	shortest = min(shortest, longest)
	low, high := power(shortest, math.Floor), power(longest, math.Ceil)
	high = max(high, low+1)
	return axis{
		from: time.Duration(math.Pow10(low)) * time.Microsecond, decades: high - low,
		decade: max(columns/(high-low), 1),
	}
}

// heading writes powers of ten, each above the first bar of its decade, as many as there
// is room for.
func (a axis) heading() string {
	var line []rune
	for i := range a.decades {
		at := i * a.decade
		if i > 0 && at <= len(line) {
			continue
		}
		label := format.Duration(a.from * time.Duration(math.Pow10(i)))
		for _, zeros := range []string{".00", ".0", " "} {
			label = strings.Replace(label, zeros, "", 1)
		}
		line = append(line, []rune(strings.Repeat(" ", at-len(line))+label)...)
	}
	return string(line)
}

// bars draws the calls of a row.
func (a axis) bars(r *format.Row) string {
	counts := r.Histogram(a.from, a.decade, a.decades*a.decade)
	var top int64
	for _, n := range counts {
		top = max(top, n)
	}
	out := make([]rune, len(counts))
	for i, n := range counts {
		out[i] = ' '
		if n > 0 {
			out[i] = blocks[(n*int64(len(blocks))-1)/top]
		}
	}
	return strings.TrimRight(string(out), " ")
}
