// Package chart draws plain data as SVG for a page: when something ran, how often
// something took how long, and what called what. Pictures stretch with the page, take
// their colours from [Style], light and dark, and need no script to be read: [Script]
// adds zooming and searching. All text is escaped.
//
// A picture says in its label what it shows. A page puts a table of the same data beside
// it, for readers who do not see it.
package chart

import (
	_ "embed"
	"html"
	"html/template"
	"strconv"
	"strings"
)

// Style is the style sheet of the pictures. It sets colours as custom properties at the
// root, which a page may set otherwise.
//
//go:embed chart.css
var Style string

// Script makes pictures respond: lanes and flame graphs zoom, by mouse and keyboard, bars
// lead to where they point, and flame graphs are searched.
//
//go:embed chart.js
var Script string

// drawing is SVG under construction.
type drawing struct{ strings.Builder }

// open begins an element with attributes, given as names and values.
func (d *drawing) open(name string, attributes ...string) {
	d.WriteByte('<')
	d.WriteString(name)
	for i := 0; i+1 < len(attributes); i += 2 {
		d.WriteByte(' ')
		d.WriteString(attributes[i])
		d.WriteString(`="`)
		d.WriteString(html.EscapeString(attributes[i+1]))
		d.WriteByte('"')
	}
	d.WriteByte('>')
}

func (d *drawing) close(name string) {
	d.WriteString("</")
	d.WriteString(name)
	d.WriteByte('>')
}

// element writes an element that holds text only.
func (d *drawing) element(name, text string, attributes ...string) {
	d.open(name, attributes...)
	d.WriteString(html.EscapeString(text))
	d.close(name)
}

// picture begins an SVG element as wide as the page lets it be.
func (d *drawing) picture(class, label string, height int) {
	d.open("svg", "class", "chart "+class, "role", "img", "aria-label", label, "width", "100%", "height",
		strconv.Itoa(height))
}

func (d *drawing) html() template.HTML { return template.HTML(d.String()) }

// percent writes a share of the picture's width.
func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 4, 64) + "%" }

func px(n int) string { return strconv.Itoa(n) }
