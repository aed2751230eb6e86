package chart

import (
	"encoding/xml"
	"errors"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// elements parses a picture and returns its elements with their attributes.
func elements(t *testing.T, picture template.HTML) []xml.StartElement {
	t.Helper()
	var all []xml.StartElement
	for d := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v in %s", err, picture)
		}
		if e, ok := token.(xml.StartElement); ok {
			all = append(all, e.Copy())
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// bars returns the class, place and size of each bar.
func bars(t *testing.T, picture template.HTML) []string {
	var out []string
	for _, e := range elements(t, picture) {
		if class := attribute(e, "class"); strings.HasPrefix(class, "bar") && e.Name.Local == "rect" {
			out = append(out, class+" "+attribute(e, "x")+" "+attribute(e, "width")+" "+attribute(e, "y"))
		}
	}
	return out
}

const attack = `"><script>alert(1)</script>&`

func TestTimeline(t *testing.T) {
	line := Timeline{Label: attack, Span: 100 * time.Second, Lanes: []Lane{{
		Name: attack, Note: attack,
		Bars: []Bar{
			{From: 50 * time.Second, Took: 20 * time.Second, Class: "failed", Title: attack, Link: "#" + attack},
			{
				From: 10 * time.Second, Took: 50 * time.Second,
				Parts: []Bar{{From: 20 * time.Second, Took: time.Second, Class: "part"}},
			},
			{From: 60 * time.Second, Took: 90 * time.Second, Class: "open"},
		},
		Load: []float64{0, 1, 2}, Failed: []bool{false, true, false}, Part: 40 * time.Second,
	}}}
	want := []string{
		"bar 10.0000% 50.0000% 0", "bar part 20.0000% 1.0000% 9",
		"bar open 60.0000% 40.0000% 0", "bar failed 50.0000% 20.0000% 15",
	}
	if got := bars(t, line.HTML()); !slices.Equal(got, want) {
		t.Errorf("bars\n%s", strings.Join(got, "\n"))
	}
	for _, e := range elements(t, line.HTML()) {
		if e.Name.Local == "script" {
			t.Error("a title became an element")
		}
		if attribute(e, "class") == "load" && attribute(e, "width") != "120.0000%" {
			t.Errorf("three parts of 40 s are %s of 100 s wide", attribute(e, "width"))
		}
	}
	if len(elements(t, Timeline{}.HTML())) == 0 {
		t.Error("no picture of nothing")
	}
}

// TestWhatDoesNotFit counts the bars for which there is no row.
func TestWhatDoesNotFit(t *testing.T) {
	many := make([]Bar, maxRows+3)
	for i := range many {
		many[i] = Bar{Took: time.Second}
	}
	line := Timeline{Span: time.Second, Lanes: []Lane{{Bars: many}}}.HTML()
	if n := len(bars(t, line)); n != maxRows || !strings.Contains(string(line), "and 3 more at the same time") {
		t.Errorf("%d bars in %s", n, line)
	}
}

func TestTicks(t *testing.T) {
	for span, want := range map[time.Duration]string{
		7 * time.Nanosecond: "0 2 ns 4 ns 6 ns", 100 * time.Millisecond: "0 20 ms 40 ms 60 ms 80 ms 100 ms",
		61 * time.Second: "0 20 s 40 s 60 s", 2 * time.Hour: "0 30 min 60 min 90 min 2 h",
		30 * 24 * time.Hour: "0 200 h 400 h 600 h", -1: "0",
		math.MaxInt64: "0 2562048 h",
	} {
		var got []string
		for _, at := range ticks(span, 5) {
			got = append(got, Duration(at))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("ticks of %v: %q", span, got)
		}
	}
}

// TestTimes puts each time into the bucket whose bounds are around it.
func TestTimes(t *testing.T) {
	times := NewTimes("times", 900, 70_000)
	for _, d := range []time.Duration{900, 1000, 1024, 5000, 69_999, 70_000} {
		before := slices.Clone(times.Counts)
		times.Add(d, 1)
		for i := range before {
			if before[i] == times.Counts[i] {
				continue
			}
			if from, to := times.Bounds(i); d < from || d > to {
				t.Errorf("%v is in the bucket from %v to %v", d, from, to)
			}
		}
	}
	times.Add(1, 2)
	times.Add(time.Hour, 3)
	if first, last := times.Counts[0], times.Counts[len(times.Counts)-1]; first != 2 || last != 3 {
		t.Errorf("what is outside is not in the first and last bucket: %v", times.Counts)
	}
	times.Marks = []Mark{{At: 5000, Name: attack}}
	columns, marks := 0, 0
	for _, e := range elements(t, times.HTML(100)) {
		switch attribute(e, "class") {
		case "column":
			columns++
		case "mark":
			marks++
		}
	}
	if filled := len(times.Counts) - count(times.Counts, 0); columns != filled || marks != 1 {
		t.Errorf("%d columns of %d, %d marks", columns, filled, marks)
	}
}

func count(all []int64, what int64) (n int) {
	for _, v := range all {
		if v == what {
			n++
		}
	}
	return n
}

func TestFlame(t *testing.T) {
	var f Flame
	f.Add([]string{"main", attack}, 3)
	f.Add([]string{"main", "b", "c"}, 5)
	f.Add([]string{"main"}, 2)
	main := f.Calls()[0]
	if f.Value != 10 || main.Value != 10 || main.Self() != 2 || main.Calls()[0].Name != "b" ||
		main.Calls()[1].Self() != 3 {
		t.Errorf("%+v", main)
	}
	var got []string
	for _, e := range elements(t, f.HTML("flames", func(n int64) string { return "n" })) {
		if strings.HasPrefix(attribute(e, "class"), "frame ") {
			got = append(got, attribute(e, "x")+" "+attribute(e, "width")+" "+attribute(e, "y"))
		}
	}
	want := []string{
		"0.0000% 100.0000% 0", "0.0000% 100.0000% 18", "0.0000% 50.0000% 36", "0.0000% 50.0000% 54",
		"50.0000% 30.0000% 36",
	}
	if !slices.Equal(got, want) {
		t.Errorf("frames %q", got)
	}
	if picture := (&Flame{}).HTML("", nil); strings.Contains(string(picture), "frame hue") {
		t.Error("frames of nothing")
	}
}
