package chart

import (
	"cmp"
	"fmt"
	"html/template"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Timeline is when things ran, on an axis from its beginning to Span later.
type Timeline struct {
	Label string // what the picture shows
	Span  time.Duration
	Lanes []Lane
}

// Lane is one row of a timeline: its bars, and below them how much ran at once.
type Lane struct {
	Name string
	Note string // in small letters behind the name
	Bars []Bar
	// Load is how many ran at once on average, in each Part of the time; nil draws none.
	// Failed says of each part whether something failed in it.
	Load   []float64
	Failed []bool
	Part   time.Duration
}

// Bar is something that ran. Parts are drawn below it.
type Bar struct {
	From, Took time.Duration // from the beginning of the timeline
	Class      string        // "", "failed", "open" or "part"
	Title      string        // shown where the pointer rests
	Link       string        // where a click leads to, such as #call-1; "" for nowhere
	Parts      []Bar
}

// Sizes in pixels.
const (
	barHeight  = 9
	partHeight = 4
	rowHeight  = barHeight + partHeight + 2
	loadHeight = 22
	axisHeight = 20
	maxRows    = 24 // of bars at the same time; what does not fit is not drawn
)

// HTML draws the timeline.
func (t Timeline) HTML() template.HTML {
	var d drawing
	d.open("div", "class", "timeline", "data-span", strconv.FormatInt(int64(t.Span), 10), "tabindex", "0", "role",
		"group", "aria-label", t.Label)
	for i := range t.Lanes {
		t.lane(&d, &t.Lanes[i])
	}
	t.axis(&d)
	d.close("div")
	return d.html()
}

func (t Timeline) lane(d *drawing, l *Lane) {
	d.open("div", "class", "lane")
	d.open("p", "class", "lane-name")
	d.element("b", l.Name)
	d.WriteByte(' ')
	d.element("small", l.Note)
	d.close("p")
	rows, left := pack(l.Bars)
	height := max(len(rows), 1) * rowHeight
	if l.Load != nil {
		height += loadHeight
	}
	d.picture("bars", l.Name+": "+l.Note, height)
	d.open("svg", "class", "zoom", "x", "0%", "width", "100%", "height", px(height))
	for i, row := range rows {
		for _, b := range row {
			t.bar(d, b, i*rowHeight)
		}
	}
	if l.Load != nil {
		t.load(d, l, height-loadHeight)
	}
	d.close("svg")
	d.close("svg")
	if left > 0 {
		d.element("p", fmt.Sprintf("and %d more at the same time", left), "class", "lane-more")
	}
	d.close("div")
}

// pack puts bars into rows in which none covers another, and counts those that fit
// into none.
func pack(bars []Bar) (rows [][]*Bar, left int) {
	order := make([]*Bar, len(bars))
	for i := range bars {
		order[i] = &bars[i]
	}
	slices.SortStableFunc(order, func(a, b *Bar) int { return cmp.Compare(a.From, b.From) })
next:
	for _, b := range order {
		for i, row := range rows {
			if last := row[len(row)-1]; last.From+last.Took <= b.From {
				rows[i] = append(row, b)
				continue next
			}
		}
		if len(rows) == maxRows {
			left++
			continue
		}
		rows = append(rows, []*Bar{b})
	}
	return rows, left
}

func (t Timeline) bar(d *drawing, b *Bar, y int) {
	t.rect(d, b, y, barHeight)
	for i := range b.Parts {
		t.rect(d, &b.Parts[i], y+barHeight, partHeight)
	}
}

func (t Timeline) rect(d *drawing, b *Bar, y, height int) {
	from := t.share(b.From)
	attributes := []string{
		"class", strings.TrimSpace("bar " + b.Class), "x", percent(from), "y", px(y),
		"width", percent(t.share(b.From+b.Took) - from), "height", px(height),
	}
	if b.Link != "" {
		attributes = append(attributes, "data-link", b.Link)
	}
	d.open("rect", attributes...)
	d.element("title", b.Title)
	d.close("rect")
}

// share returns where a moment is between the ends of the timeline, 0 to 1.
func (t Timeline) share(at time.Duration) float64 {
	if t.Span <= 0 {
		return 0
	}
	return min(max(float64(at)/float64(t.Span), 0), 1)
}

// load draws how much ran at once, as an area, and where something failed.
func (t Timeline) load(d *drawing, l *Lane, y int) {
	top := slices.Max(append([]float64{0}, l.Load...))
	if top == 0 {
		return
	}
	width := float64(l.Part) * float64(len(l.Load)) / float64(max(t.Span, 1))
	d.open("svg", "class", "load", "x", "0%", "y", px(y), "width", percent(width), "height", px(loadHeight), "viewBox",
		fmt.Sprintf("0 0 %d %d", len(l.Load), loadHeight), "preserveAspectRatio", "none")
	area := fmt.Appendf(nil, "M0 %d", loadHeight)
	const base = 3 // below it, failures
	for i, n := range l.Load {
		at := (loadHeight - base) * (1 - n/top)
		area = fmt.Appendf(area, "V%.1fH%d", at, i+1)
	}
	area = fmt.Appendf(area, "V%dZ", loadHeight)
	d.open("path", "d", string(area))
	d.element("title", fmt.Sprintf("at once, on average of %s: at most %.3g", Duration(l.Part), top))
	d.close("path")
	for i, failed := range l.Failed {
		if failed {
			d.open("rect", "class", "failure", "x", px(i), "y", px(loadHeight-base), "width", "1", "height", px(base))
			d.close("rect")
		}
	}
	d.close("svg")
}

// axis draws ticks at round times. The script draws others once it has zoomed.
func (t Timeline) axis(d *drawing) {
	d.picture("axis", "from 0 to "+Duration(t.Span), axisHeight)
	d.open("g", "class", "ticks")
	for _, at := range ticks(t.Span, 5) {
		x, anchor := t.share(at), "middle"
		if x < 0.04 {
			anchor = "start"
		} else if x > 0.96 {
			anchor = "end"
		}
		d.open("line", "x1", percent(x), "x2", percent(x), "y1", "0", "y2", "4")
		d.close("line")
		d.element("text", Duration(at), "x", percent(x), "y", "16", "text-anchor", anchor)
	}
	d.close("g")
	d.close("svg")
}

// ticks returns at most n+1 round moments from 0 to span.
func ticks(span time.Duration, n int) []time.Duration {
	step := max(span, 1)
	for _, s := range steps {
		if span/s <= time.Duration(n) {
			step = s
			break
		}
	}
	var out []time.Duration
	for i := range max(span, 0)/step + 1 {
		out = append(out, i*step)
	}
	return out
}

// steps are the round distances between ticks.
var steps = func() (all []time.Duration) {
	for unit := time.Duration(1); unit <= 10*time.Second; unit *= 10 {
		all = append(all, unit, 2*unit, 5*unit)
	}
	for _, minutes := range []time.Duration{1, 2, 5, 10, 20, 30} {
		all = append(all, minutes*time.Minute)
	}
	for unit := time.Hour; unit <= 1000*time.Hour; unit *= 10 {
		all = append(all, unit, 2*unit, 5*unit)
	}
	return all
}()

// Duration writes a time with at most three digits of a unit: 1.5 s, 20 min.
func Duration(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + " ns"
	case d < time.Millisecond:
		return digits(d, time.Microsecond) + " µs"
	case d < time.Second:
		return digits(d, time.Millisecond) + " ms"
	case d < 2*time.Minute:
		return digits(d, time.Second) + " s"
	case d < 2*time.Hour:
		return digits(d, time.Minute) + " min"
	}
	return digits(d, time.Hour) + " h"
}

func digits(d, unit time.Duration) string {
	n, places := float64(d)/float64(unit), 0
	if n < 9.995 {
		places = 2
	} else if n < 99.95 {
		places = 1
	}
	s := strconv.FormatFloat(n, 'f', places, 64)
	if places > 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}
