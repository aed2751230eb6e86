package chart

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strconv"
)

// Flame is a frame of a flame graph: how much was seen in it and in what it called. Its
// zero value is an empty graph.
type Flame struct {
	Name  string
	Value int64 // of it and all that it called
	calls map[string]*Flame
}

// Add adds a value to the frame, and to each of a path of callees below it.
func (f *Flame) Add(path []string, value int64) {
	f.Value += value
	for _, name := range path {
		next := f.calls[name]
		if next == nil {
			if f.calls == nil {
				f.calls = map[string]*Flame{}
			}
			next = &Flame{Name: name}
			f.calls[name] = next
		}
		next.Value += value
		f = next
	}
}

// Calls returns the frames below, the largest first.
func (f *Flame) Calls() []*Flame {
	return slices.SortedFunc(maps.Values(f.calls), func(a, b *Flame) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), cmp.Compare(a.Name, b.Name))
	})
}

// Self returns how much was seen in the frame itself.
func (f *Flame) Self() int64 {
	own := f.Value
	for _, c := range f.calls {
		own -= c.Value
	}
	return own
}

const (
	frameHeight = 18
	// smallest is the share of the whole below which a frame is not drawn: less than a
	// pixel of a wide screen.
	smallest = 0.0008
	maxDrawn = 4000 // frames
)

// HTML draws the graph, the outermost frame at the top. unit says what values are.
func (f *Flame) HTML(label string, unit func(int64) string) template.HTML {
	var d, body drawing
	g := flames{d: &body, unit: unit, whole: f}
	g.frame(f, 0, 0)
	height := (g.deepest + 1) * frameHeight
	d.open("div", "class", "flame", "tabindex", "0", "role", "group", "aria-label", label)
	d.picture("frames", label, height)
	d.open("svg", "class", "zoom", "x", "0%", "width", "100%", "height", px(height))
	d.WriteString(body.String())
	d.close("svg")
	d.close("svg")
	if g.hidden > 0 {
		d.element("p", fmt.Sprintf("%d frames are too narrow to be drawn", g.hidden), "class", "lane-more")
	}
	d.close("div")
	return d.html()
}

// flames draws a flame graph.
type flames struct {
	d             *drawing
	unit          func(int64) string
	whole         *Flame
	deepest       int
	drawn, hidden int
}

func (g *flames) frame(f *Flame, left float64, depth int) {
	if g.whole.Value <= 0 {
		return
	}
	width := float64(f.Value) / float64(g.whole.Value)
	if width < smallest || g.drawn >= maxDrawn {
		g.hidden++
		return
	}
	g.drawn++
	g.deepest = max(g.deepest, depth)
	g.d.open("svg", "class", "frame hue"+strconv.Itoa(hue(f.Name)), "x", percent(left), "width", percent(width), "y",
		px(depth*frameHeight), "height", px(frameHeight-1), "data-left", number(left), "data-width", number(width))
	g.d.element("title", fmt.Sprintf("%s: %s, %.3g %%", f.Name, g.unit(f.Value), 100*width))
	g.d.open("rect", "width", "100%", "height", "100%")
	g.d.close("rect")
	g.d.element("text", f.Name, "x", "3", "y", "13")
	g.d.close("svg")
	for _, c := range f.Calls() {
		g.frame(c, left, depth+1)
		left += float64(c.Value) / float64(g.whole.Value)
	}
}

// hue returns one of five colours for a name: neighbours differ, and a name keeps its
// own.
func hue(name string) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return int(h>>7) % 5
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', 6, 64) }
