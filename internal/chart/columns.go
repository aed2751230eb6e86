package chart

import (
	"html/template"
	"strconv"
	"strings"
	"time"
)

// Columns is how many things there were over time, a column each Step from From on.
type Columns struct {
	Label   string
	From    time.Time
	Step    time.Duration
	Columns []Column
}

// Column is what is stacked in one column, from below. It leads to Link if that is not "".
type Column struct {
	Title, Link string
	Parts       []Part
}

// Part is a part of a column.
type Part struct {
	Class string // "", "refused", "failed" or "open"
	N     int64
}

// Sum returns how much a column stands for.
func (c Column) Sum() (n int64) {
	for _, p := range c.Parts {
		n += p.N
	}
	return n
}

// HTML draws the columns and an axis of UTC below. A part that has anything is seen.
func (c *Columns) HTML(height int) template.HTML {
	var d drawing
	d.open("svg", "class", "chart columns", "role", "group", "aria-label", c.Label, "width", "100%", "height",
		px(height+axisHeight)) // and no image, in which there would be no links
	var top int64 = 1
	for _, column := range c.Columns {
		top = max(top, column.Sum())
	}
	for i, column := range c.Columns {
		c.column(&d, i, column, float64(height)/float64(top), height)
	}
	c.axis(&d, height)
	d.close("svg")
	return d.html()
}

func (c *Columns) column(d *drawing, i int, column Column, scale float64, height int) {
	if column.Sum() == 0 {
		return
	}
	width := 1 / float64(len(c.Columns))
	if column.Link != "" {
		d.open("a", "href", column.Link, "tabindex", "-1", "aria-label", column.Title)
	} else {
		d.open("g")
	}
	y := float64(height)
	for _, p := range column.Parts {
		if p.N == 0 {
			continue
		}
		h := max(float64(p.N)*scale, 1.5)
		y -= h
		d.open("rect", "class", strings.TrimSpace("column "+p.Class), "x", percent(float64(i)*width), "width",
			percent(width*0.88), "y", strconv.FormatFloat(y, 'f', 1, 64), "height", strconv.FormatFloat(h, 'f', 1, 64))
		d.element("title", column.Title)
		d.close("rect")
	}
	if column.Link != "" {
		d.close("a")
	} else {
		d.close("g")
	}
}

// axis has at most four ticks, at the beginnings of columns, for which there is room on a
// phone.
func (c *Columns) axis(d *drawing, y int) {
	d.open("line", "class", "base", "x1", "0%", "x2", "100%", "y1", px(y), "y2", px(y))
	d.close("line")
	every := max((len(c.Columns)+3)/4, 1)
	layout := "15:04:05"
	switch {
	case c.Step >= 28*24*time.Hour:
		layout = "Jan 2006"
	case c.Step >= 24*time.Hour:
		layout = "2 Jan"
	case c.Step >= time.Hour:
		layout = "2 Jan 15h"
	case c.Step >= time.Minute:
		layout = "15:04"
	}
	for i := 0; i < len(c.Columns); i += every {
		share := float64(i) / float64(len(c.Columns))
		d.open("line", "x1", percent(share), "x2", percent(share), "y1", px(y), "y2", px(y+4))
		d.close("line")
		d.element("text", c.From.Add(time.Duration(i)*c.Step).UTC().Format(layout), "x", percent(share), "y", px(y+16))
	}
}
