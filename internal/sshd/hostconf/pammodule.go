package hostconf

import (
	"path/filepath"
	"slices"
	"strings"
)

// ModuleSettings is what a PAM module's own file says.
type ModuleSettings struct {
	File      string // that file, if it was read
	FailsOpen bool   // the module succeeds while its service is unavailable
	AsksCode  bool   // beside what the module asks for otherwise
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
	case "pam_sss":
		b, err := h.Read(sssdConfig)
		prompts := func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "[prompting/2fa") }
		if err == nil && slices.ContainsFunc(strings.Split(string(b), "\n"), prompts) {
			l.Own = ModuleSettings{File: sssdConfig, AsksCode: true}
		}
	}
}

// lastSetting returns the value of a key of an INI file, "" if it is not set.
func lastSetting(text, key string) (value string) {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, "=")
		if ok && strings.TrimSpace(k) == key {
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
