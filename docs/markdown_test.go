package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A block is a fenced block of a page, with what the comments above it say.
//
// The blocks of a tutorial are run. A console block holds commands, each after a
// prompt ("# " as root, "$ " as the person), and below each what it prints; "…"
// stands for any text in a line, and alone in its line for any lines. A block
// with file=PATH is written to that file; host=NAME is on another host. Comments say what a reader sees from
// the text:
//
//	<!-- terminal: NAME -->   the command goes on, in a terminal of that name
//	<!-- exit: N -->          the block's last command ends with this code
//	<!-- recording: NAME -->  make screenshots shows the block in images/NAME.svg
type block struct {
	page     string
	line     int
	language string
	file     string
	host     string // "" is the first
	terminal string
	record   string
	exit     int
	text     string
}

var comment = regexp.MustCompile(`^<!-- (terminal|exit|recording): (\S+) -->$`)

// blocks returns the fenced blocks of a page, in order.
func blocks(t testing.TB, page string) []block {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	list, err := parse(page, string(text))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func parse(page, text string) ([]block, error) {
	var list []block
	var next block
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if m := comment.FindStringSubmatch(line); m != nil {
			if err := next.remark(m[1], m[2]); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", page, i+1, err)
			}
			continue
		}
		info, fenced := strings.CutPrefix(line, "```")
		if !fenced {
			continue
		}
		next.page, next.line = page, i+1
		indent := lines[i][:strings.Index(lines[i], "```")]
		for _, word := range strings.Fields(info) {
			if path, ok := strings.CutPrefix(word, "file="); ok {
				next.file = path
			} else if name, ok := strings.CutPrefix(word, "host="); ok {
				next.host = name
			} else {
				next.language = word
			}
		}
		for i++; ; i++ {
			if i == len(lines) {
				return nil, fmt.Errorf("%s:%d: the block has no end", page, next.line)
			}
			if strings.TrimSpace(lines[i]) == "```" {
				break
			}
			next.text += strings.TrimPrefix(lines[i], indent) + "\n"
		}
		list = append(list, next)
		next = block{}
	}
	return list, nil
}

func (b block) isConsole() bool { return b.language == "console" }

// remark takes what a comment before the block says.
func (b *block) remark(key, value string) (err error) {
	switch key {
	case "terminal":
		b.terminal = value
	case "recording":
		b.record = value
	case "exit":
		b.exit, err = strconv.Atoi(value)
	}
	return err
}

// A step is one command of a console block.
type step struct {
	root    bool
	line    int
	command string
	record  string   // the block's
	output  []string // as the page shows it; empty if it shows nothing
}

// steps takes a console block apart. A command goes on in the next line where it
// ends in a backslash or opens a here document.
func (b block) steps() ([]step, error) {
	var list []step
	lines := strings.Split(strings.TrimSuffix(b.text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		command, root := strings.CutPrefix(lines[i], "# ")
		if !root {
			var ok bool
			if command, ok = strings.CutPrefix(lines[i], "$ "); !ok {
				if len(list) == 0 {
					return nil, fmt.Errorf("%s:%d: the block begins with no prompt", b.page, b.line+1+i)
				}
				last := &list[len(list)-1]
				last.output = append(last.output, lines[i])
				continue
			}
		}
		s := step{root: root, line: b.line + 1 + i, command: command, record: b.record}
		for strings.HasSuffix(lines[i], `\`) && i+1 < len(lines) {
			i++
			s.command += "\n" + lines[i]
		}
		if _, end, ok := strings.Cut(command, "<<"); ok {
			end, _, _ = strings.Cut(strings.Trim(end, "'\" -"), " ")
			for i+1 < len(lines) {
				i++
				s.command += "\n" + lines[i]
				if lines[i] == end {
					break
				}
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// matches reports whether what a command printed is what the page shows.
func matches(shown []string, printed string) bool {
	var b strings.Builder
	b.WriteString(`^`)
	for _, line := range shown {
		if strings.TrimSpace(line) == "…" {
			b.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(strings.TrimRight(line, " "), "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		b.WriteString(strings.Join(parts, `.*?`) + ` *\n`)
	}
	b.WriteString(`$`)
	if printed != "" && !strings.HasSuffix(printed, "\n") {
		printed += "\n"
	}
	return regexp.MustCompile(b.String()).MatchString(printed)
}

// pages returns the Markdown pages of the project, relative to this directory.
func pages(t testing.TB) []string {
	t.Helper()
	var list []string
	for _, pattern := range []string{"../*.md", "*.md", "*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, found...)
	}
	if len(list) < 10 {
		t.Fatalf("only %d pages: %v", len(list), list)
	}
	return list
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		shown, printed string
		want           bool
	}{
		{"a", "a\n", true},
		{"a", "a", true},
		{"a", "b\n", false},
		{"a", "a\nb\n", false},
		{"a\n…", "a\nb\nc\n", true},
		{"…\nc", "a\nb\nc\n", true},
		{"…\nc", "a\nb\n", false},
		{"serial …, valid", "serial 12, valid\n", true},
		{"serial …, valid", "serial 12, expired\n", false},
		{"1.5", "115\n", false},
	} {
		if got := matches(strings.Split(c.shown, "\n"), c.printed); got != c.want {
			t.Errorf("%q shown, %q printed: %v", c.shown, c.printed, got)
		}
	}
}

func TestBlocks(t *testing.T) {
	const page = "text\n\n<!-- terminal: server -->\n```console\n# run \\\n  --more\nready …\n$ cat <<'END'\na\n" +
		"END\na\n```\n\n<!-- exit: 3 -->\n```console\n# no\n```\n```caddyfile file=/x\ny\n```\n"
	list, err := parse("page", page)
	if err != nil || len(list) != 3 || list[0].terminal != "server" || list[1].exit != 3 || list[1].terminal != "" ||
		list[2].file != "/x" || list[2].text != "y\n" {
		t.Fatalf("%+v %v", list, err)
	}
	got, err := list[0].steps()
	if err != nil || len(got) != 2 || !got[0].root || got[0].command != "run \\\n  --more" || got[0].line != 5 ||
		got[1].root ||
		got[1].command != "cat <<'END'\na\nEND" || len(got[1].output) != 1 {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := parse("page", "```console\n# a\n"); err == nil {
		t.Error("a block without end is taken")
	}
	if _, err := (block{text: "output alone\n"}).steps(); err == nil {
		t.Error("output before any prompt is taken")
	}
}
