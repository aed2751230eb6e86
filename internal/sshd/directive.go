package sshd

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Line is where something is written.
type Line struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // from 1; 0 means the file as a whole
	Text string `json:"text,omitempty"`
}

func (l Line) String() string {
	switch {
	case l.Line == 0 && l.Text == "":
		return l.File
	case l.Line == 0:
		return l.File + ": " + l.Text
	}
	return fmt.Sprintf("%s:%d: %s", l.File, l.Line, l.Text)
}

// directive is one line of sshd_config, Includes followed.
type directive struct {
	Line
	keyword string // lower case
	args    []string
	match   []criterion // of every Match block that it stands in; nil means it always applies
	meant   bool        // oneFactorMark stands above it
}

// oneFactorMark is the comment that says, on the line above, that whoever wrote
// an AuthenticationMethods, or a condition of PAM's, knows that it lets people
// in with one factor.
const oneFactorMark = "# postern: one factor is meant"

// criterion is one condition of a Match line.
type criterion struct {
	attribute string // user, group, host, address, localaddress, localport, …; all
	patterns  []string
}

// Bounds on what a configuration may make us read.
const (
	includeDepth  = 16
	directivesMax = 10000
	fileMax       = 1 << 20
)

// directives reads sshd_config(5) and whatever it includes. A file that cannot
// be read is an error, as it is for sshd.
func (h hostFiles) directives(file string) ([]directive, error) {
	var out []directive
	return out, h.readDirectives(&out, file, nil, 0)
}

func (h hostFiles) readDirectives(out *[]directive, file string, match []criterion, depth int) error {
	b, err := h.read(file)
	if err != nil {
		return err
	}
	outer := match
	number, meant := 0, false
	for text := range strings.Lines(string(b)) {
		number++
		text = strings.TrimSpace(text)
		words := splitWords(text)
		if len(words) == 0 {
			meant = text == oneFactorMark
			continue
		}
		d := directive{
			Line: Line{File: h.shown(file), Line: number, Text: text}, keyword: strings.ToLower(words[0]), args: words[1:], match: match, meant: meant,
		}
		meant = false
		switch d.keyword {
		case "match":
			match = append(slices.Clone(outer), criteria(d.args)...)
			d.match = match
		case "include":
			if depth < includeDepth {
				if err := h.include(out, d.args, match, depth); err != nil {
					return err
				}
			}
		}
		if len(*out) >= directivesMax {
			return fmt.Errorf("%s: more than %d lines", file, directivesMax)
		}
		*out = append(*out, d)
	}
	return nil
}

func (h hostFiles) include(out *[]directive, patterns []string, match []criterion, depth int) error {
	for _, pattern := range patterns {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join("/etc/ssh", pattern)
		}
		files, _ := filepath.Glob(h.path(pattern))
		for _, f := range files {
			if hidden(f) && !hidden(pattern) {
				continue // glob(3) does not find it
			}
			if err := h.readDirectives(out, f, match, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func hidden(file string) bool { return strings.HasPrefix(filepath.Base(file), ".") }

// splitWords splits a line as sshd does: blanks, one optional '=' after the
// keyword, double quotes, and '#' for a comment.
func splitWords(line string) []string {
	var words []string
	for line = strings.TrimLeft(line, " \t"); line != "" && line[0] != '#'; line = strings.TrimLeft(line, " \t") {
		if line[0] == '"' {
			word, rest, ok := strings.Cut(line[1:], `"`)
			if !ok {
				return words // sshd refuses the line
			}
			words, line = append(words, word), rest
			continue
		}
		end := strings.IndexAny(line, " \t")
		if len(words) == 0 {
			end = strings.IndexAny(line, " \t=")
		}
		if end < 0 {
			end = len(line)
		}
		words = append(words, line[:end])
		line = strings.TrimLeft(line[end:], " \t")
		if len(words) == 1 {
			line = strings.TrimPrefix(line, "=")
		}
	}
	return words
}

// criteria reads the arguments of a Match line.
func criteria(args []string) []criterion {
	var out []criterion
	for i := 0; i < len(args); i++ {
		attribute, value, ok := strings.Cut(args[i], "=")
		attribute = strings.ToLower(attribute)
		if attribute == "all" || attribute == "invalid-user" { // take no patterns
			out = append(out, criterion{attribute: attribute})
			continue
		}
		if !ok && i+1 < len(args) {
			i++
			value = args[i]
		}
		out = append(out, criterion{attribute: attribute, patterns: strings.Split(value, ",")})
	}
	return out
}

// applies reports whether the directive counts for a connection.
func (d directive) applies(c Case) bool {
	return !slices.ContainsFunc(d.match, func(m criterion) bool { return !m.holds(c) })
}

func (m criterion) holds(c Case) bool {
	switch m.attribute {
	case "all":
		return true
	case "user":
		return matchList(c.User, m.patterns)
	case "group":
		return slices.ContainsFunc(c.groups, func(g string) bool { return matchList(g, m.patterns) }) &&
			!slices.ContainsFunc(c.groups, func(g string) bool { return negated(g, m.patterns) })
	case "host":
		return matchList(c.Host, m.patterns)
	case "address":
		return matchAddress(c.Address, m.patterns)
	case "localaddress":
		return matchAddress(c.LocalAddress, m.patterns)
	case "localport":
		return matchList(c.LocalPort, m.patterns)
	}
	return false
}

// matchList is sshd's pattern list: some pattern matches and no negated one.
func matchList(s string, patterns []string) bool {
	return !negated(s, patterns) && slices.ContainsFunc(patterns, func(p string) bool { return wildcard(p, s) })
}

func negated(s string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		p, ok := strings.CutPrefix(p, "!")
		return ok && wildcard(p, s)
	})
}

func matchAddress(s string, patterns []string) bool {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return false
	}
	found := false
	for _, p := range patterns {
		p, not := strings.CutPrefix(p, "!")
		prefix, err := netip.ParsePrefix(p)
		hit := err == nil && prefix.Contains(addr) || wildcard(p, s)
		if hit && not {
			return false
		}
		found = found || hit
	}
	return found
}

// wildcard matches s against a pattern of literals, * and ?, in time linear in
// their product.
func wildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// hostFiles reads a host's files, below another root than / in tests and
// images.
type hostFiles struct{ root string }

// path returns where a file of the host is.
func (h hostFiles) path(file string) string {
	if h.root == "" || strings.HasPrefix(file, h.root+"/") {
		return file
	}
	return filepath.Join(h.root, file)
}

// shown is the file's name on the host.
func (h hostFiles) shown(file string) string {
	if h.root == "" {
		return file
	}
	return strings.TrimPrefix(file, h.root)
}

func (h hostFiles) read(file string) ([]byte, error) {
	path := h.path(file)
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > fileMax {
		return nil, fmt.Errorf("%s is no ordinary file of at most %d bytes", file, fileMax)
	}
	return os.ReadFile(path)
}
