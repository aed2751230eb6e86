// Package terminal prints the output of commands: lists, single things, times
// and numbers, fitted to the terminal where there is one. What a terminal might obey
// is escaped, in text and in JSON. It also reads what people type, such as sizes and
// misspelt words.
package terminal

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// Screen is the terminal that a command prints on. The zero value is no terminal.
type Screen struct {
	Width  int  // columns; 0 where nothing may be cut: a pipe, a file
	Colour bool // a terminal, and the user does not ask for NO_COLOR
}

// ScreenOf looks at where a command prints.
func ScreenOf(out io.Writer) Screen {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Screen{}
	}
	s := Screen{Colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	s.Width, _, _ = term.GetSize(int(f.Fd()))
	return s
}

// IsTerminal reports whether a stream is a terminal: progress, prompts and
// secrets go to nothing else.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Printer is where a command prints: its result to Out, all else to Err.
type Printer struct {
	Out, Err io.Writer
	Screen   Screen // what Out shows
}

// List prints a list, or with asJSON one object a line. The header has one word a column; row returns the
// cells of an item, of which empty ones are shown as a dash. The first column
// identifies the item and is never cut.
func List[T any](p Printer, items []T, asJSON bool, header string, row func(T) []string) error {
	if asJSON {
		for _, item := range items {
			if err := JSON(p.Out, item); err != nil {
				return err
			}
		}
		return nil
	}
	if len(items) == 0 {
		if p.Screen.Width > 0 {
			fmt.Fprintln(p.Err, "none")
		}
		return nil
	}
	t := Table{Headed: true, Rows: [][]string{strings.Fields(header)}}
	for _, item := range items {
		t.Rows = append(t.Rows, row(item))
	}
	return t.Print(p.Out, p.Screen)
}

// Field is a name of what one thing has, and its value.
type Field [2]string

// Fields prints one thing, or with asJSON the object v. Fields that are empty are
// left out.
func (p Printer) Fields(v any, asJSON bool, fields ...Field) error {
	if asJSON {
		return JSON(p.Out, v)
	}
	fields = slices.DeleteFunc(fields, func(f Field) bool { return f[1] == "" })
	longest := 0
	for _, f := range fields {
		longest = max(longest, len(f[0]))
	}
	for _, f := range fields {
		if _, err := fmt.Fprintf(p.Out, "%-*s  %s\n", longest, f[0], p.Screen.paint(clean(f[1]))); err != nil {
			return err
		}
	}
	return nil
}

// Table is rows of cells.
type Table struct {
	Rows    [][]string
	Headed  bool // the first row is the header
	Wrapped bool // the last column is prose: it is not cut, but wrapped
}

// Print aligns the cells by spaces, and fits them to the screen.
func (t Table) Print(w io.Writer, s Screen) error {
	if len(t.Rows) == 0 {
		return nil
	}
	for _, row := range t.Rows {
		for i, cell := range row {
			row[i] = Dash(clean(cell))
		}
	}
	widths := t.fit(s.Width)
	var b strings.Builder
	for n, row := range t.Rows {
		paint, last := s.paint, len(row)-1
		if n == 0 && t.Headed {
			paint = s.bold
		}
		indent := 0
		for i, cell := range row[:last] {
			text := cut(cell, widths[i])
			b.WriteString(paint(text) + strings.Repeat(" ", widths[i]-columnsOf(text)+2))
			indent += widths[i] + 2
		}
		if t.Wrapped {
			b.WriteString(Wrap(row[last], s.Width, indent) + "\n")
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
func (t Table) fit(screen int) []int {
	widths := make([]int, len(t.Rows[0]))
	for _, row := range t.Rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columnsOf(cell))
		}
	}
	if screen == 0 || len(widths) == 1 || t.Wrapped {
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

// Wrap breaks prose that begins at a column into lines that fit.
func Wrap(text string, screen, indent int) string {
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

// Cut escapes what a terminal might obey in a line, and shortens it to the screen.
func (s Screen) Cut(line string) string {
	if line = clean(line); s.Width == 0 {
		return line
	}
	return cut(line, s.Width)
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
func (s Screen) paint(cell string) string {
	colour := ""
	switch {
	case !s.Colour:
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

func (s Screen) bold(text string) string {
	if !s.Colour {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}
