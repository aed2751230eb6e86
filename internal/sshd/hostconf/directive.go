package hostconf

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// Directive is one line of sshd_config, Includes followed.
type Directive struct {
	Line
	Keyword string // lower case
	Args    []string
	Match   []criterion // of every Match block that it stands in; nil means it always applies
	Meant   bool        // oneFactorMark stands above it
}

// OneFactorMark is a comment on the line above an AuthenticationMethods, or a condition of
// PAM. It says that access with one factor is intended there.
const OneFactorMark = "# postern: one factor is meant"

// criterion is one condition of a Match line.
type criterion struct {
	Attribute string // user, group, host, address, localaddress, localport, …; all
	Patterns  []string
}

// Directives reads sshd_config(5) and whatever it includes. A file that cannot
// be read is an error, as it is for sshd.
func (h Files) Directives(file string) ([]Directive, error) {
	r := configReader{Files: h}
	_, err := r.read(file, nil, 0)
	return r.directives, err
}

// ConfigCopy is sshd's configuration with each file that it includes, for an sshd
// that does not see the host's files.
type ConfigCopy struct {
	Main  string            // the first file
	Files map[string][]byte // by name
	names map[string]string // which file of the host each copies
}

// Copy copies sshd's configuration into a directory; its Include lines name the
// copies.
func (h Files) Copy(file, dir string) (ConfigCopy, error) {
	c := ConfigCopy{Files: map[string][]byte{}, names: map[string]string{}}
	r := configReader{Files: h, dir: dir, copied: &c}
	var err error
	c.Main, err = r.read(file, nil, 0)
	return c, err
}

// Original replaces the names of copies in what sshd says.
func (c ConfigCopy) Original(said string) string {
	var pairs []string
	for name, original := range c.names {
		pairs = append(pairs, name, original)
	}
	return strings.NewReplacer(pairs...).Replace(said)
}

// configReader reads sshd_config(5) and what it includes.
type configReader struct {
	Files
	directives []Directive
	files      int
	dir        string      // of the copies
	copied     *ConfigCopy // nil: none is wanted
}

// read reads a file and returns the name of its copy.
func (r *configReader) read(file string, match []criterion, depth int) (string, error) {
	if r.files++; r.files > includesMax || depth > includeDepth {
		return "", fmt.Errorf("%s: more than %d files are included, or more than %d in each other", file, includesMax,
			includeDepth)
	}
	b, err := r.Read(file)
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("%s holds a NUL byte, where sshd ends the line", file)
	}
	// The name ends so that none is the beginning of another.
	name := filepath.Join(r.dir, fmt.Sprintf("%d.conf", r.files))
	outer := match
	number, meant := 0, false
	var out strings.Builder
	for text := range strings.Lines(string(b)) {
		number++
		text = strings.Trim(text, " \t\r\n\f")
		words := Words(text)
		if len(words) == 0 {
			meant = text == OneFactorMark
			fmt.Fprintln(&out, text)
			continue
		}
		d := Directive{
			Line: Line{
				File: file,
				Line: number,
				Text: text,
			},
			Keyword: strings.ToLower(words[0]),
			Args:    words[1:],
			Match:   match,
			Meant:   meant,
		}
		meant = false
		switch d.Keyword {
		case "match":
			match = append(slices.Clone(outer), Criteria(d.Args)...)
			d.Match = match
		case "include":
			if text, err = r.include(d.Args, match, depth); err != nil {
				return "", err
			}
		}
		fmt.Fprintln(&out, text)
		if len(r.directives) >= directivesMax {
			return "", fmt.Errorf("%s: more than %d lines", file, directivesMax)
		}
		r.directives = append(r.directives, d)
	}
	if r.copied != nil {
		r.copied.Files[name], r.copied.names[name] = []byte(out.String()), file
	}
	return name, nil
}

// include reads what patterns match and returns the line that includes the copies.
func (r *configReader) include(patterns []string, match []criterion, depth int) (string, error) {
	line := "Include"
	for _, pattern := range patterns {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join("/etc/ssh", pattern)
		}
		for _, f := range r.Glob(pattern) {
			name, err := r.read(f, match, depth+1)
			if err != nil {
				return "", err
			}
			line += " " + name
		}
	}
	if line == "Include" {
		return "", nil
	}
	return line, nil
}

// Words splits a line as sshd does: the keyword, which one '=' may follow, then
// arguments with quotes and backslashes, up to a '#' that begins one (argv_split of
// misc.c). What follows a quote that does not end is left out: sshd refuses the line.
func Words(line string) []string {
	line = strings.TrimLeft(line, " \t")
	if line == "" || line[0] == '#' {
		return nil
	}
	end := strings.IndexAny(line, " \t=")
	if end < 0 {
		return []string{strings.Trim(line, `"`)}
	}
	words := []string{strings.Trim(line[:end], `"`)}
	rest := strings.TrimPrefix(strings.TrimLeft(line[end:], " \t"), "=")
	for rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != '#'; rest = strings.TrimLeft(rest, " \t") {
		word, n := argument(rest)
		if n < 0 {
			return words
		}
		words, rest = append(words, word), rest[n:]
	}
	return words
}

// argument returns the first argument of s and how many bytes it takes; -1 if a
// quote does not end.
func argument(s string) (word string, n int) {
	var out []byte
	quote := byte(0)
	for ; n < len(s); n++ {
		c := s[n]
		switch {
		case c == '\\' && n+1 < len(s) && (strings.IndexByte(`'"\`, s[n+1]) >= 0 || quote == 0 && s[n+1] == ' '):
			n++
			out = append(out, s[n])
		case quote == 0 && (c == ' ' || c == '\t'):
			return string(out), n
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote && quote != 0:
			quote = 0
		default:
			out = append(out, c)
		}
	}
	if quote != 0 {
		return "", -1
	}
	return string(out), n
}

// Criteria reads the arguments of a Match line.
func Criteria(args []string) []criterion {
	var out []criterion
	for i := 0; i < len(args); i++ {
		attribute, value, ok := strings.Cut(args[i], "=")
		attribute = strings.ToLower(attribute)
		if attribute == "all" || attribute == "invalid-user" { // take no patterns
			out = append(out, criterion{Attribute: attribute})
			continue
		}
		if !ok && i+1 < len(args) {
			i++
			value = args[i]
		}
		out = append(out, criterion{Attribute: attribute, Patterns: strings.Split(value, ",")})
	}
	return out
}

// Applies reports whether the directive applies to a connection.
func (d Directive) Applies(c Case) bool {
	return !slices.ContainsFunc(d.Match, func(m criterion) bool { return !m.holds(c) })
}

func (m criterion) holds(c Case) bool {
	switch m.Attribute {
	case "all":
		return true
	case "user":
		return MatchList(c.User, m.Patterns)
	case "group":
		return slices.ContainsFunc(c.Groups, func(g string) bool { return MatchList(g, m.Patterns) }) &&
			!slices.ContainsFunc(c.Groups, func(g string) bool { return negated(g, m.Patterns) })
	case "host":
		return MatchList(c.Host, m.Patterns)
	case "address":
		return MatchAddress(c.Address, m.Patterns)
	case "localaddress":
		return MatchAddress(c.LocalAddress, m.Patterns)
	case "localport":
		return MatchList(c.LocalPort, m.Patterns)
	}
	return false
}

// MatchList is sshd's pattern list: some pattern matches and no negated one.
func MatchList(s string, patterns []string) bool {
	return !negated(s, patterns) && slices.ContainsFunc(patterns, func(p string) bool { return Wildcard(p, s) })
}

func negated(s string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		p, ok := strings.CutPrefix(p, "!")
		return ok && Wildcard(p, s)
	})
}

// MatchAddress reports whether an address matches one of the patterns, as in
// sshd_config(5) under Match.
func MatchAddress(s string, patterns []string) bool {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return false
	}
	found := false
	for _, p := range patterns {
		p, not := strings.CutPrefix(p, "!")
		prefix, err := netip.ParsePrefix(p)
		hit := err == nil && prefix.Contains(addr) || Wildcard(p, s)
		if hit && not {
			return false
		}
		found = found || hit
	}
	return found
}

// Wildcard matches s against a pattern of literals, * and ?, in time linear in
// their product.
func Wildcard(pattern, s string) bool {
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
