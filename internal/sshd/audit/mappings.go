package audit

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// judgeMappings reports the lines of mapping files that cannot be parsed, or that
// pam_yubico does not read as they are meant.
func (a *audit) judgeMappings() {
	files := []string{hostconf.MappingsFile}
	if b, err := a.Read(hostconf.ShellConfigFile); err == nil {
		if c, err := hostconf.ParseShellConfig(b); err == nil && c.TrustedKeys != "" {
			files = append(files, c.TrustedKeys)
		}
	}
	literal := authfiles(a.stack)
	for _, file := range append(files, literal...) {
		a.judgeMapping(file, slices.Contains(literal, file))
	}
}

// authfiles returns the files of pam_yubico's lines.
func authfiles(stack []hostconf.PAMLine) (files []string) {
	for _, l := range stack {
		files = append(files, authfiles(l.Sub)...)
		for _, arg := range l.Args {
			if file, ok := strings.CutPrefix(arg, "authfile="); ok && l.Module == "pam_yubico" {
				files = append(files, file)
			}
		}
	}
	return files
}

func (a *audit) judgeMapping(file string, literal bool) {
	b, err := a.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		a.add(Finding{
			ID: "mapping-unreadable", Severity: Low, Title: "whose YubiKey is whose cannot be read: " + err.Error(),
			Where: hostconf.Line{File: file}, Proof: "cat " + file, Fix: "write lines ACCOUNT:PUBLICID into it",
		})
	}
	read, unreadable := hostconf.Mappings(file, b)
	for _, l := range unreadable {
		a.add(Finding{
			ID: "mapping-unreadable", Severity: Low, Title: "this line assigns no YubiKey", Where: l,
			Proof: "grep -n '' " + file, Fix: "write ACCOUNT:PUBLICID, with # in front of a comment",
		})
	}
	for _, m := range read {
		if literal && !m.Literal {
			a.add(Finding{
				ID:       "mapping-not-literal",
				Severity: Low,
				Title:    "pam_yubico compares blanks and capitals, too: this line assigns no YubiKey",
				Where:    m.Line,
				Proof:    "cat -A " + file,
				Fix:      "write " + m.Account + ":" + strings.Join(m.IDs, ":"),
			})
		}
	}
}
