package hostconf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// PAMLine is one line of a PAM stack, includes followed.
type PAMLine struct {
	Line
	Control map[string]string // return value → action, from pam.conf(5)
	Module  string            // base name without .so
	Args    []string
	Sub     []PAMLine // a substack
	Own     ModuleSettings
	Meant   bool // oneFactorMark stands above it, or postern ssh config wrote it
}

var pamControls = map[string]map[string]string{
	"required":   {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
	"requisite":  {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
	"sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
	"optional":   {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}

// PAMStack reads the stack of one phase (auth, account) of a service; one that
// has no file is served by that of "other".
func (h Files) PAMStack(service, phase string) ([]PAMLine, error) {
	budget := pamFilesMax
	stack, err := h.readPAM(h.PAMFile(service), phase, 0, &budget)
	if errors.Is(err, fs.ErrNotExist) {
		return h.readPAM(h.PAMFile("other"), phase, 0, &budget)
	}
	return stack, err
}

// pamDirs are where libpam looks for a service's file, in this order: the
// administrator's, then the distribution's.
var pamDirs = []string{"/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"}

// PAMFile returns the file of a service, or that a line includes.
func (h Files) PAMFile(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	for _, dir := range pamDirs {
		if _, err := h.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return filepath.Join(pamDirs[0], name)
}

// pamFilesMax bounds how many files a stack may include, each time counted.
const pamFilesMax = 256

func (h Files) readPAM(file, phase string, depth int, budget *int) ([]PAMLine, error) {
	if *budget--; *budget < 0 {
		return nil, fmt.Errorf("%s: more than %d files are included", file, pamFilesMax)
	}
	b, err := h.Read(file)
	if err != nil {
		return nil, err
	}
	var out []PAMLine
	number, meant, ours := 0, false, false
	text := strings.ReplaceAll(string(b), "\\\n", " \x00") // continued lines count as lines
	for raw := range strings.Lines(text) {
		number++
		at := Line{File: file, Line: number, Text: strings.TrimSpace(strings.ReplaceAll(raw, "\x00", ""))}
		number += strings.Count(raw, "\x00")
		words := PAMWords(at.Text)
		if len(words) == 0 {
			meant = at.Text == OneFactorMark
			ours = at.Text == PAMBegin || ours && at.Text != PAMEnd
			continue
		}
		here := meant || ours
		meant = false
		if len(words) >= 2 && words[0] == "@include" && depth < includeDepth {
			more, _ := h.readPAM(h.PAMFile(words[1]), phase, depth+1, budget)
			out = append(out, more...)
			continue
		}
		if len(words) < 3 || strings.ToLower(strings.TrimPrefix(words[0], "-")) != phase {
			continue
		}
		line := PAMLine{Line: at, Module: strings.TrimSuffix(filepath.Base(words[2]), ".so"), Args: words[3:], Meant: here}
		switch control := strings.ToLower(words[1]); {
		case (control == "include" || control == "substack") && depth < includeDepth:
			sub, err := h.readPAM(h.PAMFile(words[2]), phase, depth+1, budget)
			if err != nil {
				sub = []PAMLine{mustFail(at)} // as libpam does
			}
			if control == "include" {
				out = append(out, sub...)
				continue
			}
			line.Sub = sub
		case strings.HasPrefix(control, "["):
			line.Control = pamControl(control)
		default:
			line.Control = pamControls[control]
		}
		if line.Sub == nil {
			h.readOwn(&line)
		}
		out = append(out, line)
	}
	return out, nil
}

// mustFail stands for a line that libpam cannot read: it denies.
func mustFail(at Line) PAMLine {
	return PAMLine{Line: at, Module: "pam_deny", Control: map[string]string{"default": "bad"}}
}

// PAMWords splits a line at blanks, keeping [bracketed words] together.
func PAMWords(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != "" && line[0] != '#'; line = strings.TrimLeft(line, " \t") {
		end := strings.IndexAny(line, " \t")
		if line[0] == '[' {
			end = strings.IndexByte(line, ']') + 1
		}
		if end <= 0 {
			end = len(line)
		}
		words = append(words, line[:end])
		line = line[end:]
	}
	return words
}

func pamControl(bracketed string) map[string]string {
	control := map[string]string{}
	for _, pair := range strings.Fields(strings.Trim(bracketed, "[]")) {
		if value, action, ok := strings.Cut(pair, "="); ok {
			control[value] = action
		}
	}
	return control
}

// CodeModules are the modules whose success proves a one-time code.
var CodeModules = map[string]bool{
	"pam_postern": true, "pam_yubico": true, "pam_google_authenticator": true, "pam_oath": true, "pam_u2f": true,
	"pam_duo": true, "pam_otpw": true, "pam_barada": true, "pam_privacyidea": true,
}

// AsksCode reports whether the line, or its substack, asks for a code.
func (l PAMLine) AsksCode() bool {
	return CodeModules[l.Module] || l.Own.AsksCode || slices.ContainsFunc(l.Sub, PAMLine.AsksCode)
}

// The marks around what is ours in PAM's file, so that it can be written again.
const (
	PAMBegin = "# postern: begin"
	PAMEnd   = "# postern: end"
)
