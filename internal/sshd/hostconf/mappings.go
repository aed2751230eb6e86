package hostconf

import (
	"regexp"
	"slices"
	"strings"
)

// Mapping is a line of a file that says which YubiKeys an account may use, as
// pam_yubico(8) describes it under authfile: ACCOUNT:PUBLICID:PUBLICID.
type Mapping struct {
	Line
	Account string
	IDs     []string // public IDs, lower case
	// Literal says that the line stands as pam_yubico compares it: without blanks and
	// capitals around what it means.
	Literal bool
}

// publicID is a YubiKey's public ID: modhex, up to 16 letters.
var publicID = regexp.MustCompile(`^[cbdefghijklnrtuv]{1,16}$`)

// blankComment finds a comment behind a mapping.
var blankComment = regexp.MustCompile(`\s#.*`)

// Mappings reads such a file as it is meant: comments and empty lines are left out,
// blanks and tabs around names do not matter, nor do capitals in public IDs. Lines
// that say something else are returned as unreadable.
func Mappings(file string, b []byte) (read []Mapping, unreadable []Line) {
	number := 0
	for text := range strings.Lines(string(b)) {
		number++
		raw := strings.TrimRight(text, "\n")
		text = strings.TrimSpace(strings.TrimPrefix(raw, "\ufeff"))
		if text == "" || text[0] == '#' {
			continue
		}
		fields := strings.Split(blankComment.ReplaceAllString(text, ""), ":")
		m := Mapping{Account: strings.TrimSpace(fields[0])}
		m.Line = Line{File: file, Line: number} // without its text, which may hold a secret
		for _, id := range fields[1:] {
			m.IDs = append(m.IDs, strings.ToLower(strings.TrimSpace(id)))
		}
		m.IDs = slices.DeleteFunc(m.IDs, func(id string) bool { return id == "" })
		wrong := slices.ContainsFunc(m.IDs, func(id string) bool { return !publicID.MatchString(id) })
		if m.Account == "" || strings.ContainsAny(m.Account, "\t\x00") || len(m.IDs) == 0 || wrong {
			unreadable = append(unreadable, m.Line)
			continue
		}
		m.Literal = raw == m.Account+":"+strings.Join(m.IDs, ":")
		read = append(read, m)
	}
	return read, unreadable
}
