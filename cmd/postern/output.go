package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"golang.org/x/text/width"
)

// Everything that a command prints for people goes through this file; what it
// prints for programs through json.go.
//
//   - printList prints a list: a header and a row an item, or with --json one
//     object a line. An empty list prints nothing.
//   - printFields prints one thing: a name and a value a line, or with --json one
//     object.
//   - stamp, day, dash and counted print a time, a day, what is not there, and a
//     number of things.

// screen is the terminal that standard output is, if it is one.
type screen struct {
	width  int  // columns; 0 where nothing may be cut: a pipe, a file
	colour bool // a terminal, and the user does not ask for NO_COLOR
}

// screenOf looks at where a command prints.
func screenOf(out io.Writer) screen {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return screen{}
	}
	s := screen{colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	s.width, _, _ = term.GetSize(int(f.Fd()))
	return s
}

// isTerminal reports whether a stream is a terminal: progress, prompts and
// secrets go to nothing else.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// jsonFlag adds --json, which every command that reads something has.
func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON, one object a line")
}

// printList prints a list. The header has one word a column; row returns the
// cells of an item, of which empty ones are shown as a dash. The first column
// identifies the item and is never cut.
func printList[T any](a *app, items []T, asJSON bool, header string, row func(T) []string) error {
	if asJSON {
		for _, item := range items {
			if err := printJSON(a.out, item); err != nil {
				return err
			}
		}
		return nil
	}
	if len(items) == 0 {
		if a.screen.width > 0 {
			fmt.Fprintln(a.err, "none")
		}
		return nil
	}
	t := table{headed: true, rows: [][]string{strings.Fields(header)}}
	for _, item := range items {
		t.rows = append(t.rows, row(item))
	}
	return t.print(a.out, a.screen)
}

// field is a name and a value of one thing.
type field struct{ name, value string }

// printFields prints one thing, or with --json the object v. Fields that are
// empty are left out.
func (a *app) printFields(v any, asJSON bool, fields ...field) error {
	if asJSON {
		return printJSON(a.out, v)
	}
	longest := 0
	for _, f := range fields {
		if f.value != "" {
			longest = max(longest, len(f.name))
		}
	}
	for _, f := range fields {
		if f.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%-*s  %s\n", longest, f.name, a.screen.paint(clean(f.value))); err != nil {
			return err
		}
	}
	return nil
}

// table is rows of cells.
type table struct {
	rows    [][]string
	headed  bool // the first row is the header
	wrapped bool // the last column is prose: it is not cut, but wrapped
}

// print aligns the cells by spaces, and fits them to the screen.
func (t table) print(w io.Writer, s screen) error {
	for _, row := range t.rows {
		for i, cell := range row {
			row[i] = dash(clean(cell))
		}
	}
	widths := t.fit(s.width)
	var b strings.Builder
	for n, row := range t.rows {
		paint, last := s.paint, len(row)-1
		if n == 0 && t.headed {
			paint = s.bold
		}
		indent := 0
		for i, cell := range row[:last] {
			text := cut(cell, widths[i])
			b.WriteString(paint(text) + strings.Repeat(" ", widths[i]-columnsOf(text)+2))
			indent += widths[i] + 2
		}
		if t.wrapped {
			b.WriteString(wrap(row[last], s.width, indent) + "\n")
			continue
		}
		b.WriteString(paint(cut(row[last], widths[last])) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// least is how narrow a column may get.
const least = 8

// fit returns the width of each column. Where a row is wider than the screen, the
// widest column but the first gives way, to no less than a few letters.
func (t table) fit(screen int) []int {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columnsOf(cell))
		}
	}
	if screen == 0 || len(widths) == 1 || t.wrapped {
		return widths
	}
	total := 2 * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > screen; total-- {
		widest := 1
		for i := range widths[1:] {
			if widths[i+1] > widths[widest] {
				widest = i + 1
			}
		}
		if widths[widest] <= least {
			break
		}
		widths[widest]--
	}
	return widths
}

// wrap breaks prose that begins at a column into lines that fit.
func wrap(text string, screen, indent int) string {
	if screen < indent+2*least {
		return text
	}
	var b strings.Builder
	used := indent
	for i, word := range strings.Fields(text) {
		switch n := columnsOf(word); {
		case i == 0:
			used += n
		case used+1+n > screen:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			used = indent + n
		default:
			b.WriteByte(' ')
			used += 1 + n
		}
		b.WriteString(word)
	}
	return b.String()
}

// cut shortens a text that is wider than so many columns.
func cut(text string, columns int) string {
	if columnsOf(text) <= columns {
		return text
	}
	var b strings.Builder
	used := 1 // the ellipsis
	for _, r := range text {
		if used += columnsOf(string(r)); used > columns {
			break
		}
		b.WriteRune(r)
	}
	return b.String() + "…"
}

// columnsOf returns how many columns of a terminal a text takes.
func columnsOf(text string) int {
	n := 0
	for _, r := range text {
		switch k := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case k == width.EastAsianWide || k == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}

// clean escapes what a terminal might obey: control characters, and those that
// change the direction of writing.
func clean(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// The words that are coloured where they are a whole cell.
var (
	good = []string{"ok", "active", "valid", "enabled"}
	bad  = []string{"problem", "refused", "failed", "revoked", "removed"}
	dull = []string{"advice", "expired", "disabled", "suspended", "waiting"}
)

// paint colours a cell by what it says.
func (s screen) paint(cell string) string {
	colour := ""
	switch {
	case !s.colour:
		return cell
	case slices.Contains(good, cell):
		colour = "32" // green
	case slices.Contains(bad, cell):
		colour = "31" // red
	case slices.Contains(dull, cell):
		colour = "33" // yellow
	default:
		return cell
	}
	return "\x1b[" + colour + "m" + cell + "\x1b[0m"
}

func (s screen) bold(text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// stamp returns a time as lists show it: to the second, with its zone. The flags
// that take a time read it.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(stampLayout)
}

const stampLayout = "2006-01-02 15:04:05Z07:00"

// day returns the day of a time, in UTC: when a certificate ends.
func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateOnly)
}

// dash stands for what is empty in a list.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// counted returns a number with what is counted: 1 certificate, 2 certificates,
// 2 entries.
func counted[N int | int64 | uint64](n N, one string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(one, "y") && !strings.HasSuffix(one, "ey"):
		one = strings.TrimSuffix(one, "y") + "ies"
	default:
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}
