package hostconf

import (
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

// OneFactorMark is the comment that says, on the line above, that whoever wrote
// an AuthenticationMethods, or a condition of PAM's, knows that it lets people
// in with one factor.
const OneFactorMark = "# postern: one factor is meant"

// criterion is one condition of a Match line.
type criterion struct {
	Attribute string // user, group, host, address, localaddress, localport, …; all
	Patterns  []string
}

// Directives reads sshd_config(5) and whatever it includes. A file that cannot
// be read is an error, as it is for sshd.
func (h Files) Directives(file string) ([]Directive, error) {
	var out []Directive
	return out, h.readDirectives(&out, file, nil, 0)
}

func (h Files) readDirectives(out *[]Directive, file string, match []criterion, depth int) error {
	b, err := h.Read(file)
	if err != nil {
		return err
	}
	outer := match
	number, meant := 0, false
	for text := range strings.Lines(string(b)) {
		number++
		text = strings.TrimSpace(text)
		words := Words(text)
		if len(words) == 0 {
			meant = text == OneFactorMark
			continue
		}
		d := Directive{
			Line: Line{File: h.Shown(file), Line: number, Text: text}, Keyword: strings.ToLower(words[0]), Args: words[1:], Match: match, Meant: meant,
		}
		meant = false
		switch d.Keyword {
		case "match":
			match = append(slices.Clone(outer), Criteria(d.Args)...)
			d.Match = match
		case "include":
			if depth < includeDepth {
				if err := h.include(out, d.Args, match, depth); err != nil {
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

func (h Files) include(out *[]Directive, patterns []string, match []criterion, depth int) error {
	for _, pattern := range patterns {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join("/etc/ssh", pattern)
		}
		files, _ := filepath.Glob(h.Path(pattern))
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

// Words splits a line as sshd does: blanks, one optional '=' after the
// keyword, double quotes, and '#' for a comment.
func Words(line string) []string {
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

// Applies reports whether the directive counts for a connection.
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
