package hostconf

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
)

// ModuleSettings is what a PAM module's own file says.
type ModuleSettings struct {
	File      string // that file, if it was read
	FailsOpen bool   // the module succeeds while its service is unavailable
	AsksCode  bool   // beside what the module asks for otherwise
	// PerAccount says that the directory decides whether it does, for each account,
	// and nothing here says that it is meant to.
	PerAccount bool
	// Groups are pattern lists, as of sshd's Match Group: the module asks who is in a
	// group that one of them matches, and grants the rest. Empty means that it asks all.
	Groups [][]string
}

// Asks reports whether the module asks who is in these groups at all.
func (m ModuleSettings) Asks(groups []string) bool {
	return len(m.Groups) == 0 || slices.ContainsFunc(m.Groups, func(patterns []string) bool {
		in := slices.ContainsFunc(groups, func(g string) bool { return MatchList(g, patterns) })
		return in && !slices.ContainsFunc(groups, func(g string) bool { return negated(g, patterns) })
	})
}

// duoConfig is where pam_duo looks unless conf= says otherwise (pam_duo(8)).
const duoConfig = "/etc/duo/pam_duo.conf"

// sssdConfig is sssd.conf(5).
const sssdConfig = "/etc/sssd/sssd.conf"

// readOwn reads the file of the line's module, for those that have one that matters.
func (h Files) readOwn(l *PAMLine) {
	switch l.Module {
	case "pam_python": // as privacyIDEA's module is run
		if len(l.Args) > 0 && strings.HasPrefix(filepath.Base(l.Args[0]), "privacyidea") {
			l.Module = "pam_privacyidea"
		}
	case "pam_duo":
		file := duoConfig
		for _, arg := range l.Args {
			if v, ok := strings.CutPrefix(arg, "conf="); ok {
				file = v
			}
		}
		b, err := h.Read(file)
		if err != nil {
			return // pam_duo fails, too
		}
		l.Own = ModuleSettings{File: file, FailsOpen: lastSetting(string(b), "failmode") != "secure"}
		for _, list := range strings.Fields(cmp.Or(lastSetting(string(b), "groups"),
			lastSetting(string(b), "group"))) {
			l.Own.Groups = append(l.Own.Groups, strings.Split(list, ","))
		}
	case "pam_sss":
		b, err := h.Read(sssdConfig)
		if err != nil {
			return
		}
		prompts := hasSection(string(b), "prompting/2fa")
		// FreeIPA's accounts may have authenticators: SSSD asks for both factors then.
		if prompts || setsTo(string(b), "ipa", "id_provider", "auth_provider") {
			l.Own = ModuleSettings{File: sssdConfig, AsksCode: true, PerAccount: !prompts}
		}
	}
}

// hasSection reports whether an INI file has a section that begins with a name.
func hasSection(text, name string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "["+name) {
			return true
		}
	}
	return false
}

// setsTo reports whether an INI file sets one of the keys to a value anywhere.
func setsTo(text, value string, keys ...string) bool {
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(line, "=")
		if slices.Contains(keys, strings.TrimSpace(k)) && strings.TrimSpace(v) == value {
			return true
		}
	}
	return false
}

// lastSetting returns the value of a key of an INI file, "" if it is not set.
func lastSetting(text, key string) (value string) {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, "=")
		if ok && strings.EqualFold(strings.TrimSpace(k), key) {
			value = strings.TrimSpace(v)
		}
	}
	return value
}

// FixOfFailOpen says how to have the line's module refuse while its service is
// unavailable.
func (l PAMLine) FixOfFailOpen() string {
	if l.Own.FailsOpen {
		return "failmode=secure in " + l.Own.File
	}
	return "auth required " + l.Module + ".so"
}

// FixOfExemption says how to change the line so that it exempts no user.
func (l PAMLine) FixOfExemption() string {
	if len(l.Own.Groups) > 0 {
		return "remove groups= from " + l.Own.File
	}
	return "remove the condition"
}
