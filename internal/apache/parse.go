package apache

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Bounds on what is read, so that a hostile or broken configuration cannot
// make the parser grow without end.
const (
	maxFiles   = 1000      // files read in all, Include'd ones too
	maxFile    = 4 << 20   // bytes in one file
	maxLine    = 64 << 10  // bytes in one directive, continuations joined
	maxDepth   = 32        // nested sections, and nested Includes
	maxTotal   = 100_000   // directives in all
	maxExpand  = maxLine   // bytes after ${…} is put in
	maxPattern = 64 * 1024 // bytes of one expression
)

// Directive is one line of an Apache configuration, or one section with the
// lines inside it.
type Directive struct {
	Name     string   // as written, without the angle brackets
	Args     []string // unquoted
	Raw      string   // everything after the name, as written (expressions need their quotes)
	File     string
	Line     int // of the first physical line, from 1
	Section  bool
	Children []*Directive
}

// is reports whether the directive has the given name; Apache ignores case.
func (d *Directive) is(name string) bool { return strings.EqualFold(d.Name, name) }

// arg returns the i-th argument or "".
func (d *Directive) arg(i int) string {
	if i < len(d.Args) {
		return d.Args[i]
	}
	return ""
}

// parser reads one configuration with everything that it includes.
type parser struct {
	fsys    fs.FS  // rooted at /
	root    string // ServerRoot, for relative Includes
	defines map[string]string
	notes   *notes
	macros  map[string]*macro
	modules map[string]bool // that LoadModule lines name; nil if there is none
	files   int
	total   int
}

// parseFile reads one file, its Includes put in place.
func (p *parser) parseFile(name string, depth int) ([]*Directive, error) {
	if p.files++; p.files > maxFiles {
		return nil, fmt.Errorf("more than %d files are included", maxFiles)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("%s: files include each other more than %d deep", name, maxDepth)
	}
	info, err := fs.Stat(p.fsys, fsName(name))
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %d MiB", name, maxFile>>20)
	}
	text, err := fs.ReadFile(p.fsys, fsName(name))
	if err != nil {
		return nil, err
	}
	return p.parse(name, string(text), depth)
}

// fsName turns an absolute path into the name that an fs.FS rooted at / wants.
func fsName(name string) string {
	if name = strings.TrimPrefix(path.Clean(name), "/"); name == "" {
		return "."
	}
	return name
}

// frame is a section that is being read.
type frame struct {
	*Directive
	skipped bool // its condition does not hold
}

// parse reads the text of one file.
func (p *parser) parse(name, text string, depth int) ([]*Directive, error) {
	return p.parseLines(name, logicalLines(text), depth)
}

func (p *parser) parseLines(name string, lines []logicalLine, depth int) ([]*Directive, error) {
	root := &Directive{Section: true, File: name}
	stack := []frame{{Directive: root}}
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		s, err := p.line(name, l)
		if err != nil {
			return nil, err
		}
		if s == "" {
			continue
		}
		top := stack[len(stack)-1]
		if closing, ok := strings.CutPrefix(s, "</"); ok {
			closing = strings.TrimSpace(strings.TrimSuffix(closing, ">"))
			if len(stack) == 1 || !top.is(closing) {
				return nil, fmt.Errorf("%s:%d: </%s> closes nothing that is open", name, l.line, closing)
			}
			stack = stack[:len(stack)-1]
			if below := stack[len(stack)-1]; conditional(top.Directive) {
				below.Children = append(below.Children, top.Children...)
			}
			continue
		}
		d, err := p.directive(s, name, l.line)
		if err != nil {
			return nil, err
		}
		switch {
		case d.Section && d.is("Macro"):
			if i, err = p.macro(d, lines, i, top.skipped); err != nil {
				return nil, err
			}
		case d.Section:
			if len(stack) > maxDepth {
				return nil, fmt.Errorf("%s:%d: sections nest more than %d deep", name, l.line, maxDepth)
			}
			if !conditional(d) {
				top.Children = append(top.Children, d)
			}
			stack = append(stack, frame{d, top.skipped || !p.holds(d)})
		case !top.skipped:
			if err := p.place(top.Directive, d, depth); err != nil {
				return nil, err
			}
		}
	}
	if len(stack) > 1 {
		open := stack[len(stack)-1]
		return nil, fmt.Errorf("%s:%d: <%s> is never closed", name, open.Line, open.Name)
	}
	return root.Children, nil
}

// line returns what stands in a line, "" for nothing.
func (p *parser) line(name string, l logicalLine) (string, error) {
	if len(l.text) > maxLine {
		return "", fmt.Errorf("%s:%d: line is longer than %d KiB", name, l.line, maxLine>>10)
	}
	s := strings.TrimSpace(l.text)
	if s == "" || s[0] == '#' {
		return "", nil
	}
	if p.total++; p.total > maxTotal {
		return "", fmt.Errorf("%s:%d: more than %d directives", name, l.line, maxTotal)
	}
	return s, nil
}

// place puts a directive where it belongs: Includes and uses of macros are
// replaced by what they stand for, Defines are remembered.
func (p *parser) place(top, d *Directive, depth int) error {
	switch {
	case d.is("Include"), d.is("IncludeOptional"):
		got, err := p.include(d, depth)
		top.Children = append(top.Children, got...)
		return err
	case d.is("Use") && p.macros[strings.ToLower(d.arg(0))] != nil:
		got, err := p.use(d, depth)
		top.Children = append(top.Children, got...)
		return err
	case d.is("UndefMacro"):
		delete(p.macros, strings.ToLower(d.arg(0)))
	case d.is("LoadModule"):
		p.load(d)
	case d.is("Define"):
		value := d.arg(1)
		p.defines[d.arg(0)] = value
	case d.is("UnDefine"):
		delete(p.defines, d.arg(0))
	case d.is("ServerRoot"):
		if path.IsAbs(d.arg(0)) {
			p.root = d.arg(0)
		}
	default:
		top.Children = append(top.Children, d)
	}
	return nil
}

// include reads what an Include names: a file, a folder or a pattern. What is
// missing is an error for Include and nothing for IncludeOptional, as in
// Apache; only a pattern may match nothing.
func (p *parser) include(d *Directive, depth int) ([]*Directive, error) {
	pattern := d.arg(0)
	if !path.IsAbs(pattern) {
		pattern = path.Join(p.root, pattern)
	}
	names, err := fs.Glob(p.fsys, fsName(pattern))
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %s %s: %w", d.File, d.Line, d.Name, pattern, err)
	}
	if len(names) == 0 {
		if d.is("IncludeOptional") || strings.ContainsAny(pattern, "*?[") {
			return nil, nil
		}
		return nil, fmt.Errorf("%s:%d: %s: no such file: %s", d.File, d.Line, d.Name, pattern)
	}
	var all []*Directive
	for _, n := range names {
		files := []string{"/" + n}
		if info, err := fs.Stat(p.fsys, n); err == nil && info.IsDir() {
			entries, err := fs.ReadDir(p.fsys, n)
			if err != nil {
				return nil, err
			}
			files = files[:0]
			for _, e := range entries {
				if !e.IsDir() {
					files = append(files, path.Join("/", n, e.Name()))
				}
			}
		}
		for _, f := range files {
			got, err := p.parseFile(f, depth+1)
			if err != nil {
				return nil, err
			}
			all = append(all, got...)
		}
	}
	return all, nil
}

// directive reads one logical line.
func (p *parser) directive(s, file string, line int) (*Directive, error) {
	d := &Directive{File: file, Line: line}
	if s[0] == '<' {
		if s[len(s)-1] != '>' {
			return nil, fmt.Errorf("%s:%d: section is missing its closing >", file, line)
		}
		d.Section = true
		s = strings.TrimSpace(s[1 : len(s)-1])
	}
	s, err := p.expand(s)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", file, line, err)
	}
	d.Name, d.Raw = s, ""
	if i := strings.IndexAny(s, " \t"); i >= 0 {
		d.Name, d.Raw = s[:i], strings.TrimSpace(s[i:])
	}
	if d.Name == "" {
		return nil, fmt.Errorf("%s:%d: a section needs a name", file, line)
	}
	d.Args = words(d.Raw)
	return d, nil
}

// expand puts in what Define has named. A name that is not defined stays as it
// is, as in Apache: it may be an environment variable.
func (p *parser) expand(s string) (string, error) {
	if !strings.Contains(s, "${") {
		return s, nil
	}
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "${")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		value, known := p.defines[name]
		if !closed || !known {
			b.WriteString("${")
			s = rest
			continue
		}
		b.WriteString(value)
		if b.Len() > maxExpand {
			return "", fmt.Errorf("${%s} grows the line past %d KiB", name, maxExpand>>10)
		}
		s = after
	}
}

type logicalLine struct {
	text string
	line int
}

// logicalLines joins lines that end in a backslash, and keeps the number of
// the first.
func logicalLines(text string) []logicalLine {
	var out []logicalLine
	var cur strings.Builder
	first := 1
	n := 0
	for l := range strings.Lines(text) {
		n++
		l = strings.TrimRight(l, "\r\n")
		if cur.Len() == 0 {
			first = n
		}
		if strings.HasSuffix(l, `\`) {
			cur.WriteString(l[:len(l)-1] + " ")
			continue
		}
		cur.WriteString(l)
		out = append(out, logicalLine{cur.String(), first})
		cur.Reset()
	}
	if cur.Len() > 0 {
		out = append(out, logicalLine{cur.String(), first})
	}
	return out
}

// words splits arguments as Apache's ap_getword_conf does: at white space,
// with single or double quotes around a word, and a backslash before a quote
// or a backslash inside them.
func words(s string) []string {
	var out []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return out
		}
		if q := s[0]; q == '"' || q == '\'' {
			var b strings.Builder
			i := 1
			for ; i < len(s) && s[i] != q; i++ {
				if s[i] == '\\' && i+1 < len(s) && (s[i+1] == q || s[i+1] == '\\') {
					i++
				}
				b.WriteByte(s[i])
			}
			out = append(out, b.String())
			s = s[min(i+1, len(s)):]
			continue
		}
		i := strings.IndexAny(s, " \t")
		if i < 0 {
			i = len(s)
		}
		out = append(out, s[:i])
		s = s[i:]
	}
}
