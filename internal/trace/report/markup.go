package report

import (
	"bytes"
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/format"
)

// markup is a format of [fmt.Sprintf] that is HTML: a constant, never what was recorded.
type markup string

// document is HTML that is being written. It is not written by a template, which calls
// methods by their names: then the linker leaves out none, and the command is a fifth larger.
type document struct{ bytes.Buffer }

// add writes markup with values in it: texts are escaped for elements and for attributes
// in quotes, durations are written with their unit.
func (d *document) add(m markup, values ...any) {
	for i, v := range values {
		switch v := v.(type) {
		case string:
			values[i] = escaper.Replace(v)
		case time.Duration:
			values[i] = format.Duration(v)
		case template.HTML, int, int64, uint64, float64:
		default:
			panic(fmt.Sprintf("%T in a page", v)) // it would not be escaped
		}
	}
	fmt.Fprintf(d, string(m), values...)
}

// maybe writes markup with a text in it, unless the text is empty.
func (d *document) maybe(m markup, text string) {
	if text != "" {
		d.add(m, text)
	}
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;", "\x00", "\uFFFD")

// table writes a table that scrolls by itself: its columns' headings and its rows.
func (d *document) table(label string, head markup, rows func()) {
	d.add(`<div class="scroll" tabindex="0" role="region" aria-label="%s"><table>`+"\n<thead><tr>", label)
	d.add(head + "</tr></thead>\n<tbody>")
	rows()
	d.add("</tbody></table></div>")
}
