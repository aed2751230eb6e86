package apache

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says how much a note matters.
type Severity string

// The severities, from the gravest.
const (
	Closed   Severity = "closed"   // could not be carried over, so the place is closed to whom it may concern
	Lost     Severity = "lost"     // has no match, and is left out; as far as is known it guards nothing
	Widened  Severity = "widened"  // carried over, but asks for less: a client that Apache refuses may pass
	Narrowed Severity = "narrowed" // carried over, but asks for more: a client that Apache lets pass is refused
	Changed  Severity = "changed"  // carried over, but answers differently in some case
	Info     Severity = "info"     // needs no change
)

// Grave reports whether other clients pass than with Apache, or something is
// left out.
func (s Severity) Grave() bool { return s == Closed || s == Lost || s == Widened || s == Narrowed }

// Note is what a line of the configuration turned into when it is not simply
// carried over.
type Note struct {
	File      string   `json:"file"`
	Line      int      `json:"line"`
	Severity  Severity `json:"severity"`
	Directive string   `json:"directive"` // the directive, as written
	Text      string   `json:"text"`
}

// String formats the note as compilers do, for editors to jump to.
func (n Note) String() string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", n.File, n.Line, n.Severity, n.Directive, n.Text)
}

type notes struct {
	list []Note
	seen map[Note]bool
}

// add notes something about a directive, once.
func (n *notes) add(s Severity, d *Directive, format string, args ...any) {
	line := d.Name
	if d.Raw != "" {
		line += " " + d.Raw
	}
	if d.Section {
		line = "<" + line + ">"
	}
	if r := []rune(line); len(r) > 60 {
		line = string(r[:59]) + "…"
	}
	note := Note{File: d.File, Line: d.Line, Severity: s, Directive: line, Text: fmt.Sprintf(format, args...)}
	if n.seen == nil {
		n.seen = map[Note]bool{}
	}
	if !n.seen[note] {
		n.seen[note] = true
		n.list = append(n.list, note)
	}
}

// sorted returns the notes in the order of the files and lines.
func (n *notes) sorted() []Note {
	slices.SortStableFunc(n.list, func(a, b Note) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return n.list
}
