package gate_test

import (
	"net/url"
	"path"
	"strings"
)

// lax says for some careless ways of reading a path whether each ends at
// /wp-admin.
func lax(u *url.URL) map[string]bool {
	at := func(p string) bool { return strings.HasPrefix(strings.ToLower(path.Clean("/"+p)), "/wp-admin") }
	p := u.Path
	if !strings.HasPrefix(p, "/") {
		return nil
	}
	slashes := strings.ReplaceAll(p, `\`, "/")
	beforeSemicolon, _, _ := strings.Cut(p, ";")
	beforeNUL, _, _ := strings.Cut(p, "\x00")
	var parameters []string
	for s := range strings.SplitSeq(p, "/") {
		s, _, _ = strings.Cut(s, ";")
		parameters = append(parameters, strings.TrimRight(s, ". "))
	}
	twice, err := url.PathUnescape(p)
	if err != nil {
		twice = p
	}
	return map[string]bool{
		"cleaned it is guarded":              at(p),
		"with backslashes turned":            at(slashes),
		"cut at a semicolon":                 at(beforeSemicolon),
		"cut at NUL":                         at(beforeNUL),
		"decoded twice":                      at(twice),
		"with parameters stripped":           at(strings.Join(parameters, "/")),
		"as it stands it has guarded prefix": strings.HasPrefix(strings.ToLower(p), "/wp-admin"),
	}
}
