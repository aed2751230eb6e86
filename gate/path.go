package gate

import (
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Paths is a set of path prefixes, as a guard names them. A prefix does not
// stop at a segment boundary: "/wp-admin" covers "/wp-admin;x" and
// "/wp-administrator". The zero value covers nothing.
type Paths struct {
	prefixes []string // folded, clean; a directory's ends in "/"
	patterns []*regexp.Regexp
	exact    []string // directories whose index page is guarded, without the slash at the end
}

// CompilePaths reads a guard's paths: each starts with "/"; a "*" at the end is
// allowed and means nothing more. One that starts with "~" is a regular
// expression (RE2) that is looked for anywhere in the path, without case. Index names are the file names that a
// directory's address may serve: a guard on /a/index.html covers /a/ too, and
// names that begin with "index." always count. The error says what is wrong with a path
// that could not guard what it seems to.
func CompilePaths(paths, indexNames []string) (Paths, error) {
	var p Paths
	for _, raw := range paths {
		if pattern, ok := strings.CutPrefix(raw, "~"); ok {
			re, err := regexp.Compile("(?i)" + pattern)
			if err != nil {
				return Paths{}, pathError(raw, err.Error())
			}
			p.patterns = append(p.patterns, re)
			continue
		}
		prefix := strings.TrimSuffix(raw, "*")
		switch {
		case !strings.HasPrefix(prefix, "/"):
			return Paths{}, pathError(raw, "a path starts with /")
		case strings.ContainsAny(prefix, "*?#%\\;"):
			return Paths{}, pathError(raw, `a path is written decoded, without any of * ? # % \ ;`)
		case !utf8.ValidString(prefix) || strings.ContainsFunc(prefix, unicode.IsControl):
			return Paths{}, pathError(raw, "a path is printable text")
		case cleanDir(prefix) != prefix:
			return Paths{}, pathError(raw, "a path has no //, /./ or /../ in it")
		}
		prefix = fold(prefix)
		p.prefixes = append(p.prefixes, prefix)
		dir, base := path.Split(prefix)
		if isIndex(base, indexNames) {
			p.exact = append(p.exact, strings.TrimSuffix(dir, "/"))
		}
	}
	return p, nil
}

func isIndex(base string, names []string) bool {
	if strings.HasPrefix(base, "index.") {
		return true
	}
	for _, n := range names {
		if base != "" && base == fold(n) {
			return true
		}
	}
	return false
}

// cleanDir is path.Clean that keeps a slash at the end.
func cleanDir(p string) string {
	c := path.Clean(p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

// Cover reports whether any reading of a path is covered.
func (p *Paths) Cover(r *Readings) bool {
	for _, reading := range r.all[:r.n] {
		if p.covers(reading) {
			return true
		}
	}
	return false
}

func (p *Paths) covers(reading string) bool {
	for _, prefix := range p.prefixes {
		if strings.HasPrefix(reading, prefix) ||
			len(reading) == len(prefix)-1 && strings.HasPrefix(prefix, reading) && prefix[len(reading)] == '/' {
			return true
		}
	}
	for _, dir := range p.exact {
		if strings.TrimRight(reading, "/") == dir {
			return true
		}
	}
	for _, re := range p.patterns {
		if re.MatchString(reading) {
			return true
		}
	}
	return false
}

// Readings are the ways in which servers may read one path: as it stands,
// cleaned, cut at parameters, with look-alike characters replaced. All are
// decoded and case-folded. It is filled by [Read] and may be used again.
type Readings struct {
	all [6]string
	n   int
}

func (r *Readings) add(s string) {
	for _, have := range r.all[:r.n] {
		if have == s {
			return
		}
	}
	r.all[r.n] = s
	r.n++
}

// ReadPath lists the readings of a request's path. It reports false if two servers
// could read the path so differently that no list is complete: then a guarded
// site refuses it (HTTP status 400). u.Path is the decoded path and
// u.EscapedPath how the client wrote it.
//
// Refused are a path that does not start with a slash, a backslash, control characters,
// invalid UTF-8, an encoded slash, dot, question mark or hash, an encoding
// inside an encoding, a dot segment that carries parameters, and a segment that
// begins with a space or ends in a dot or space. A common path costs no allocation.
func ReadPath(u *url.URL, into *Readings) bool {
	into.n = 0
	p := u.Path
	if u.Opaque != "" || p == "" || p[0] != '/' {
		return false
	}
	if plain(p) && (u.RawPath == "" || u.RawPath == p) {
		into.add(p)
		return true
	}
	if !unambiguous(p) || !cleanEncoding(u) {
		return false
	}
	addReadings(into, p)
	return true
}

// plain reports whether p has one reading only: lower-case ASCII letters,
// digits, and - _ . ~ / with no empty, dot or dot-ended segment.
func plain(p string) bool {
	last := byte(0)
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
		case c == '.':
			if last == '/' {
				return false
			}
		case c == '/':
			if last == '/' || last == '.' {
				return false
			}
		default:
			return false
		}
		last = c
	}
	return last != '.'
}

func addReadings(into *Readings, p string) {
	f := fold(p)
	into.addShapes(f)
	if !ascii(p) {
		into.add(cleanDir(lookalike(f)))
	}
}

// addShapes adds the readings that keep each letter as it is.
func (r *Readings) addShapes(p string) {
	r.add(p)
	r.add(cleanDir(p))
	r.add(removeDots(p))
	if i := strings.IndexByte(p, ';'); i >= 0 {
		r.add(cleanDir(cutParameters(p)))
		r.add(cleanDir(p[:i]))
	}
}

// unambiguous looks at the decoded path.
func unambiguous(p string) bool {
	if !utf8.ValidString(p) {
		return false
	}
	for i, r := range p {
		switch {
		case r == '\\' || r == utf8.RuneError || unicode.IsControl(r):
			return false
		case r == '%' && encodingAt(p[i+1:]):
			return false
		}
	}
	if !ascii(p) && !sameShape(p) {
		return false
	}
	for segment := range strings.SplitSeq(p, "/") {
		if strangeSegment(segment) {
			return false
		}
	}
	return true
}

// sameShape reports whether replacing look-alikes leaves the separators of p
// alone: a full-width slash or a two-dot leader would not.
func sameShape(p string) bool {
	l := norm.NFKC.String(p)
	for _, sep := range []string{"/", "\\", ".", ";", "%", "?", "#"} {
		if strings.Count(l, sep) != strings.Count(p, sep) {
			return false
		}
	}
	return true
}

func strangeSegment(s string) bool {
	if s == "" || s == "." || s == ".." {
		return false
	}
	name, _, parameters := strings.Cut(s, ";")
	if parameters && strings.Trim(name, ". ") == "" && name != "" {
		return true // "..;": a dot segment for a server that cuts at ";"
	}
	first, last := s[0], s[len(s)-1]
	nameEnds := name != "" && (name[len(name)-1] == '.' || name[len(name)-1] == ' ')
	return first == ' ' || last == '.' || last == ' ' || nameEnds || strings.Contains(s, "::$")
}

// encodingAt reports whether what follows a percent sign in a decoded path is
// an encoding again: two hex digits, or u and four.
func encodingAt(s string) bool {
	if len(s) >= 5 && (s[0] == 'u' || s[0] == 'U') && isHex(s[1]) && isHex(s[2]) && isHex(s[3]) && isHex(s[4]) {
		return true
	}
	return len(s) >= 2 && isHex(s[0]) && isHex(s[1])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// cleanEncoding looks at the path as the client wrote it.
func cleanEncoding(u *url.URL) bool {
	raw := u.EscapedPath()
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			continue
		}
		if i+2 >= len(raw) {
			return false
		}
		switch strings.ToLower(raw[i+1 : i+3]) {
		case "2f", "2e", "5c", "3f", "23", "00":
			return false
		}
	}
	return true
}

// removeDots resolves dot segments as RFC 3986 section 5.2.4 does, which keeps
// empty segments: /a//../b is /a/b there and /b for who merges slashes first.
func removeDots(p string) string {
	if !strings.Contains(p, "/.") {
		return p
	}
	var out []string
	segments := strings.Split(p, "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

// cutParameters removes from each segment what follows a semicolon.
func cutParameters(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return strings.Join(segments, "/")
}

// fold maps letters to one case.
func fold(s string) string {
	if ascii(s) {
		return strings.ToLower(s)
	}
	return cases.Fold().String(s)
}

// lookalike maps a folded string to what a server that normalises Unicode, or
// drops invisible characters, would make of it.
func lookalike(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Mn) {
			return -1
		}
		return r
	}, norm.NFKD.String(s))
	return fold(norm.NFKC.String(s))
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func pathError(p, why string) error {
	return postern.Errorf(postern.Invalid, "cannot guard %q: %s", p, why)
}
