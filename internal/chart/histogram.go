package chart

import (
	"fmt"
	"html/template"
	"math"
	"strconv"
	"time"
)

// Times is how many things took how long, in buckets that double every [Octave].
type Times struct {
	Label    string
	From, To time.Duration // of the axis; what is outside falls into its first or last bucket
	Counts   []int64       // by bucket
	Marks    []Mark        // such as the median
}

// Mark is a time that is pointed out.
type Mark struct {
	At   time.Duration
	Name string
}

// Octave is how many buckets there are for each doubling of the time.
const Octave = 4

// NewTimes returns an empty distribution whose buckets cover from..to, which are
// rounded outwards to powers of two of a nanosecond.
func NewTimes(label string, from, to time.Duration) Times {
	low, high := math.Floor(math.Log2(float64(max(from, 1)))), math.Ceil(math.Log2(float64(max(to, from, 1)+1)))
	high = max(high, low+1)
	return Times{
		Label: label, From: time.Duration(math.Exp2(low)), To: time.Duration(math.Exp2(high)),
		Counts: make([]int64, int(high-low)*Octave),
	}
}

// Add counts n things that took d.
func (t *Times) Add(d time.Duration, n int64) {
	i := 0
	if d > t.From {
		i = int(math.Log2(float64(d)/float64(t.From)) * Octave)
	}
	t.Counts[min(max(i, 0), len(t.Counts)-1)] += n
}

// Bounds returns the times between which bucket i lies.
func (t *Times) Bounds(i int) (from, to time.Duration) {
	at := func(i int) time.Duration { return time.Duration(float64(t.From) * math.Exp2(float64(i)/Octave)) }
	return at(i), at(i + 1)
}

// HTML draws a bar a bucket and an axis below. A bucket that holds anything is seen.
func (t *Times) HTML(height int) template.HTML {
	var d drawing
	d.picture("times", t.Label, height+axisHeight)
	t.bars(&d, height)
	for _, m := range t.Marks {
		x := percent(t.share(m.At))
		d.open("line", "class", "mark", "x1", x, "x2", x, "y1", "0", "y2", px(height))
		d.element("title", m.Name+": "+Duration(m.At))
		d.close("line")
	}
	t.axis(&d, height)
	d.close("svg")
	return d.html()
}

// Small draws the bars alone, for a cell of a table.
func (t *Times) Small(height int) template.HTML {
	var d drawing
	d.picture("times small", t.Label, height)
	t.bars(&d, height)
	d.close("svg")
	return d.html()
}

func (t *Times) bars(d *drawing, height int) {
	var top int64 = 1
	for _, n := range t.Counts {
		top = max(top, n)
	}
	width := 1 / float64(len(t.Counts))
	for i, n := range t.Counts {
		if n == 0 {
			continue
		}
		h := max(float64(height)*float64(n)/float64(top), 1.5)
		from, to := t.Bounds(i)
		d.open("rect", "class", "column", "x", percent(float64(i)*width), "width", percent(width*0.92), "y",
			strconv.FormatFloat(float64(height)-h, 'f', 1, 64), "height", strconv.FormatFloat(h, 'f', 1, 64))
		d.element("title", fmt.Sprintf("%s to %s: %d", Duration(from), Duration(to), n))
		d.close("rect")
	}
}

func (t *Times) share(at time.Duration) float64 {
	if at <= t.From {
		return 0
	}
	return min(math.Log2(float64(at)/float64(t.From))/math.Log2(float64(t.To)/float64(t.From)), 1)
}

// axis has a tick at powers of ten, as many as there is room for.
func (t *Times) axis(d *drawing, y int) {
	step, n := 1, math.Log10(float64(t.To)/float64(t.From))
	for n/float64(step) > 7 {
		step++
	}
	d.open("line", "class", "base", "x1", "0%", "x2", "100%", "y1", px(y), "y2", px(y))
	d.close("line")
	first := int(math.Ceil(math.Log10(float64(t.From))))
	for e := first; ; e += step {
		at := time.Duration(math.Pow10(e))
		if at > t.To || e > 18 {
			return
		}
		x, anchor := t.share(at), "middle"
		if x < 0.04 {
			anchor = "start"
		} else if x > 0.96 {
			anchor = "end"
		}
		d.open("line", "x1", percent(x), "x2", percent(x), "y1", px(y), "y2", px(y+4))
		d.close("line")
		d.element("text", Duration(at), "x", percent(x), "y", px(y+16), "text-anchor", anchor)
	}
}
