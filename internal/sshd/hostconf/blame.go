package hostconf

import (
	"regexp"
	"slices"
)

// disabledMethod is what sshd says of an AuthenticationMethods that asks for a
// method which is off (auth2.c); it names no line.
var disabledMethod = regexp.MustCompile(`Disabled method "([^":]+)`)

// switches are the keywords that turn a method on and off.
var switches = map[string][]string{
	"publickey":            {"pubkeyauthentication"},
	"password":             {"passwordauthentication"},
	"keyboard-interactive": {"kbdinteractiveauthentication", "challengeresponseauthentication", "skeyauthentication"},
	"gssapi-with-mic":      {"gssapiauthentication"},
	"hostbased":            {"hostbasedauthentication"},
}

// Blame returns the line that makes sshd refuse a configuration where its
// complaint names only the method that is off: the first line outside of Match
// blocks that turns it off, which wins over all later ones.
func (h Files) Blame(config, complaint string) (Line, bool) {
	m := disabledMethod.FindStringSubmatch(complaint)
	if m == nil {
		return Line{}, false
	}
	all, err := h.Directives(config)
	if err != nil {
		return Line{}, false
	}
	i := slices.IndexFunc(all, func(d Directive) bool {
		return d.Match == nil && slices.Contains(switches[m[1]], d.Keyword)
	})
	if i < 0 {
		return Line{}, false
	}
	return all[i].Line, true
}
