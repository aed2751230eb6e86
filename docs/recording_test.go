package docs_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A scene is one command of a recording, and what a terminal shows of it.
type scene struct {
	prompt  string // "# " as root, "$ " as the person
	command string
	output  string // with the terminal's control sequences
}

// screenshots is set by make screenshots.
var screenshots = flag.Bool("screenshots", false, "write the pictures in images anew")

// keepRecordings writes what was recorded, if pictures are to be written.
func (h *host) keepRecordings() {
	h.T.Helper()
	for _, sh := range h.more {
		if s := sh.begun; s.record != "" {
			h.recordings[s.record] = append(h.recordings[s.record], scene{"# ", s.command, sh.Printed()})
		}
	}
	for name, scenes := range h.recordings {
		svg := drawing(scenes)
		if !*screenshots {
			continue
		}
		if err := os.WriteFile(filepath.Join("images", name+".svg"), []byte(svg), 0o644); err != nil {
			h.T.Fatal(err)
		}
	}
}

// columns is the width of the terminal that is recorded.
const columns = 100

// inTerminal returns the command that runs another one in a terminal of its own.
func inTerminal(command string) string {
	quoted := "'" + strings.ReplaceAll(command, "'", `'\''`) + "'"
	return fmt.Sprintf(
		`env LINES=40 COLUMNS=%d TERM=xterm C=%s `+
			`script -qec 'stty -echo cols %d rows 40; eval "$C" </dev/null' /dev/null`, columns, quoted, columns)
}

// A span is text in one style.
type span struct {
	class string // of the style sheet below; "" is plain
	text  string
}

var (
	colourSequence = regexp.MustCompile("\x1b\\[([0-9;]*)m")
	otherSequence  = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-ln-z]|\x1b\\][^\x07]*\x07|\x1b[=>]|\\^D\b\b|\r")
	sgr            = map[string]string{
		"1": "b", "2": "d", "31": "r", "32": "g", "33": "y", "34": "u", "35": "m",
		"36": "c",
	}
)

// plain returns what a terminal shows, without its control sequences.
func plain(output string) string {
	return colourSequence.ReplaceAllString(otherSequence.ReplaceAllString(output, ""), "")
}

// screenLines returns the lines that a terminal shows of an output, each cut into
// spans and none longer than the terminal is wide.
func screenLines(output string) [][]span {
	var lines [][]span
	class := ""
	for _, line := range strings.Split(strings.TrimRight(otherSequence.ReplaceAllString(output, ""), "\n "), "\n") {
		var spans []span
		at := 0
		for _, m := range colourSequence.FindAllStringSubmatchIndex(line, -1) {
			spans = append(spans, span{class, line[at:m[0]]})
			class, at = restyle(class, line[m[2]:m[3]]), m[1]
		}
		lines = append(lines, wrap(append(spans, span{class, line[at:]}))...)
	}
	return lines
}

// restyle returns the class after a sequence of SGR parameters.
func restyle(class, parameters string) string {
	for _, p := range strings.Split(parameters, ";") {
		switch c := sgr[p]; {
		case c == "":
			class = ""
		default:
			class = strings.TrimSpace(class + " " + c)
		}
	}
	return class
}

// wrap breaks a line where the terminal does.
func wrap(line []span) [][]span {
	lines := [][]span{nil}
	width := 0
	for _, s := range line {
		text := []rune(s.text)
		for len(text) > columns-width {
			last := &lines[len(lines)-1]
			*last = append(*last, span{s.class, string(text[:columns-width])})
			text = text[columns-width:]
			lines, width = append(lines, nil), 0
		}
		if len(text) > 0 {
			last := &lines[len(lines)-1]
			*last = append(*last, span{s.class, string(text)})
			width += len(text)
		}
	}
	return lines
}

// The picture's measures in pixels. Every span says how wide it is, so that each
// font shows the same columns.
const (
	charWidth  = 8
	lineHeight = 19
	margin     = 16
)

const svgHead = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d">
<style>
text{font:13px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#d0d7de;white-space:pre}
.b{font-weight:bold;fill:#fff}.d,.p{fill:#8b949e}.r{fill:#ff7b72}.g{fill:#7ee787}` +
	`.y{fill:#e3b341}.u{fill:#79c0ff}.m{fill:#d2a8ff}.c{fill:#76e3ea}
@media (prefers-reduced-motion:no-preference){g{animation:a .2s both}@keyframes a{from{opacity:0}}}
</style>
<rect width="100%%" height="100%%" rx="8" fill="#161b22"/>
`

// drawing returns scenes as a picture: one after the other, where the viewer
// moves pictures at all, and all at once otherwise.
func drawing(scenes []scene) string {
	var b strings.Builder
	y := margin
	for i, s := range scenes {
		fmt.Fprintf(&b, `<g style="animation-delay:%.1fs">`+"\n", float64(i)*1.5)
		for n, line := range strings.Split(s.command, "\n") {
			prompt := s.prompt
			if n > 0 {
				prompt = "  "
			}
			for _, l := range wrap([]span{{"p", prompt}, {"b", line}}) {
				y += lineHeight
				drawLine(&b, y, l)
			}
		}
		b.WriteString("</g>\n")
		fmt.Fprintf(&b, `<g style="animation-delay:%.1fs">`+"\n", float64(i)*1.5+0.7)
		if strings.TrimSpace(plain(s.output)) != "" {
			for _, l := range screenLines(s.output) {
				y += lineHeight
				drawLine(&b, y, l)
			}
		}
		b.WriteString("</g>\n")
		y += lineHeight / 2
	}
	return fmt.Sprintf(svgHead, 2*margin+columns*charWidth, y+margin) + b.String() + "</svg>\n"
}

func drawLine(b *strings.Builder, y int, line []span) {
	x := margin
	for _, s := range line {
		width := len([]rune(s.text)) * charWidth
		if strings.TrimSpace(s.text) != "" {
			fmt.Fprintf(b, `<text x="%d" y="%d" textLength="%d"`, x, y, width)
			if s.class != "" {
				fmt.Fprintf(b, ` class="%s"`, s.class)
			}
			b.WriteByte('>')
			_ = xml.EscapeText(b, []byte(s.text)) // a Builder does not fail
			b.WriteString("</text>\n")
		}
		x += width
	}
}

func TestDrawing(t *testing.T) {
	long := strings.Repeat("x", columns+5)
	svg := drawing([]scene{
		{"# ", "postern doctor", "\x1b[1mCHECK\x1b[0m  <state>\r\n\x1b[31mbad\x1b[0m\r\n"},
		{"$ ", "echo \\\n  " + long, long + "\n"},
	})
	for _, want := range []string{
		`<text x="32" y="35" textLength="112" class="b">postern doctor</text>`,
		`<text x="16" y="54" textLength="40" class="b">CHECK</text>`,
		`<text x="56" y="54" textLength="72">  &lt;state&gt;</text>`,
		`<text x="16" y="73" textLength="24" class="r">bad</text>`,
		`<text x="16" y="158" textLength="800">` + long[:columns] + `</text>`,
		`<text x="16" y="177" textLength="40">xxxxx</text>`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestInTerminal runs a command that looks whether it writes to a terminal.
func TestInTerminal(t *testing.T) {
	out, err := exec.Command("bash", "-c", inTerminal(`test -t 1 && stty size <&1 && echo "it's"`)).CombinedOutput()
	if err != nil || plain(string(out)) != "40 100\nit's\n" {
		t.Errorf("%q %v", out, err)
	}
}
