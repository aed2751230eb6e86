package apache

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Conditions and macros are taken out while a configuration is read, as Apache
// does: what stands under a condition that does not hold is not there.

// conditional reports whether a section says only when the lines in it count.
func conditional(d *Directive) bool {
	return d.is("IfModule") || d.is("IfDefine") || d.is("IfVersion") || d.is("IfFile") || d.is("IfDirective") ||
		d.is("IfSection")
}

// holds reports whether the lines in a section take effect. What cannot be decided is
// taken as present.
func (p *parser) holds(d *Directive) bool {
	name, not := strings.CutPrefix(d.arg(0), "!")
	switch {
	case !conditional(d):
		return true
	case d.is("IfDefine"):
		_, defined := p.defines[name]
		return defined != not
	case d.is("IfVersion"):
		return version(d)
	case d.is("IfFile"):
		if !path.IsAbs(name) {
			name = path.Join(p.root, name)
		}
		_, err := fs.Stat(p.fsys, fsName(name))
		return (err == nil) != not
	case d.is("IfModule") && p.modules != nil:
		return p.modules[moduleName(name)] != not
	}
	if not {
		p.notes.add(Lost, d, "left out: what it names is taken as present, since nothing here says that it is not")
	}
	return !not
}

// builtIn are the modules that Debian's Apache has without a LoadModule line.
const builtIn = "core so http_core http log_config logio version unixd watchdog"

// load remembers a module.
func (p *parser) load(d *Directive) {
	if p.modules == nil {
		p.modules = make(map[string]bool)
		for m := range strings.FieldsSeq(builtIn) {
			p.modules[m] = true
		}
	}
	p.modules[moduleName(d.arg(0))] = true
	p.modules[moduleName(path.Base(d.arg(1)))] = true
}

// moduleName is a module's name by any of the names that it goes by: ssl_module,
// mod_ssl.c, mod_ssl.so.
func moduleName(s string) string {
	s = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(s, ".c"), ".so"), "_module")
	return strings.ToLower(strings.TrimPrefix(s, "mod_"))
}

// ours is the release of Apache whose ways Postern follows, for IfVersion.
var ours = []int{2, 4, 60}

// version reads <IfVersion [!]OPERATOR VERSION>; a regular expression is taken
// to match.
func version(d *Directive) bool {
	args := d.Args
	op := "="
	if len(args) > 1 {
		op, args = args[0], args[1:]
	}
	op, not := strings.CutPrefix(op, "!")
	if len(args) == 0 {
		return true
	}
	var want []int
	for f := range strings.SplitSeq(args[0], ".") {
		n, err := strconv.Atoi(f)
		if err != nil {
			return !not
		}
		want = append(want, n)
	}
	order := slices.Compare(ours[:min(len(want), len(ours))], want)
	if op == "=" {
		op = "=="
	}
	return holds(order, op) != not
}

// macro is what a <Macro> section defines.
type macro struct {
	file   string
	params []string
	lines  []logicalLine
}

// macro reads a <Macro> section, whose first line is at from, and returns the place
// of its last.
func (p *parser) macro(d *Directive, lines []logicalLine, from int, skipped bool) (int, error) {
	m := &macro{file: d.File, params: d.Args[min(1, len(d.Args)):]}
	for i := from + 1; i < len(lines); i++ {
		if strings.EqualFold(strings.Join(strings.Fields(lines[i].text), ""), "</Macro>") {
			if !skipped {
				if p.macros == nil {
					p.macros = make(map[string]*macro)
				}
				p.macros[strings.ToLower(d.arg(0))] = m
			}
			return i, nil
		}
		m.lines = append(m.lines, lines[i])
	}
	return 0, fmt.Errorf("%s:%d: <Macro> is never closed", d.File, d.Line)
}

// use reads the lines of a macro with values in place of its parameters, the
// longer names first, as mod_macro does.
func (p *parser) use(d *Directive, depth int) ([]*Directive, error) {
	m := p.macros[strings.ToLower(d.arg(0))]
	values := d.Args[1:]
	if len(values) != len(m.params) {
		return nil, fmt.Errorf("%s:%d: Use %s has %d values for %d parameters", d.File, d.Line, d.arg(0), len(values),
			len(m.params))
	}
	if slices.Contains(m.params, "") {
		return nil, fmt.Errorf("%s:%d: the macro %s has a parameter without a name", d.File, d.Line, d.arg(0))
	}
	if depth >= maxDepth {
		return nil, fmt.Errorf("%s:%d: macros use each other more than %d deep", d.File, d.Line, maxDepth)
	}
	type pair struct{ name, value string }
	var pairs []pair
	for i, name := range m.params {
		pairs = append(pairs, pair{name, values[i]})
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return len(b.name) - len(a.name) })
	var replace []string
	for _, x := range pairs {
		replace = append(replace, x.name, x.value)
	}
	r := strings.NewReplacer(replace...)
	lines := slices.Clone(m.lines)
	for i := range lines {
		lines[i].text = r.Replace(lines[i].text)
	}
	return p.parseLines(m.file, lines, depth+1)
}
