package hostconf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
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

// pamLineMax is the longest line, bytes: libpam before 1.6 reads the rest of a longer
// one as a line of its own.
const pamLineMax = 1022

// pamText is a line of PAM's file, continued lines joined.
type pamText struct {
	number int
	text   string // without what follows a #, unless it begins with that
}

// pamLines returns the lines of a file of PAM's as libpam assembles them
// (_assemble_line of pam_handlers.c).
func pamLines(b []byte) ([]pamText, error) {
	var out []pamText
	number, open := 0, pamText{}
	for line := range strings.Lines(string(b)) {
		number++
		if len(line) > pamLineMax || strings.ContainsRune(line, 0) {
			return nil,
				fmt.Errorf("line %d has more than %d bytes, or a NUL byte: versions of PAM read it differently",
					number, pamLineMax)
		}
		line = strings.Trim(line, " \n\t")
		if line == "" || line[0] == '#' { // also between continued lines
			out = append(out, pamText{number, line})
			continue
		}
		line, _, comment := strings.Cut(line, "#")
		line, continued := strings.CutSuffix(strings.TrimRight(line, " \t"), "\\")
		if open.text == "" {
			open.number = number
		}
		open.text += line
		if continued && !comment {
			open.text += " "
			continue
		}
		out, open = append(out, open), pamText{}
	}
	if open.text != "" {
		return nil, fmt.Errorf("line %d is continued, and no line follows", number)
	}
	return out, nil
}

// readPAM reads one phase of a file. What it includes is denied if it is missing, as
// libpam does.
func (h Files) readPAM(file, phase string, depth int, budget *int) ([]PAMLine, error) {
	if *budget--; *budget < 0 || depth > includeDepth {
		return nil, fmt.Errorf("%s: more than %d files are included, or more than %d in each other", file, pamFilesMax,
			includeDepth)
	}
	b, err := h.Read(file)
	if err != nil {
		return nil, err
	}
	lines, err := pamLines(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var out []PAMLine
	meant, ours := false, false
	for _, l := range lines {
		at := Line{File: file, Line: l.number, Text: strings.TrimSpace(l.text)}
		words := PAMWords(l.text)
		if len(words) == 0 {
			meant = at.Text == OneFactorMark
			ours = at.Text == PAMBegin || ours && at.Text != PAMEnd
			continue
		}
		here := meant || ours
		meant = false
		included, one, is := pamWords(words, phase)
		if !is {
			continue
		}
		if included != "" {
			sub, err := h.readPAM(h.PAMFile(included), phase, depth+1, budget)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
				if words[0][0] != '@' { // whose phase is unknown
					sub = []PAMLine{mustFail(at)}
				}
			}
			if err != nil {
				return nil, err
			}
			if one == nil {
				out = append(out, sub...)
				continue
			}
			one.Sub = sub
		}
		one.Line, one.Meant = at, here
		h.readOwn(one)
		out = append(out, *one)
	}
	return out, nil
}

// pamWords reads the words of a line for a phase: a file that it includes, or a
// module, or both for a substack; is tells whether the line is of that phase.
func pamWords(words []string, phase string) (included string, line *PAMLine, is bool) {
	if strings.EqualFold(words[0], "@include") && len(words) > 1 {
		return words[1], nil, true
	}
	kind := strings.ToLower(strings.TrimPrefix(words[0], "-"))
	known := slices.Contains([]string{"auth", "account", "session", "password"}, kind)
	if known && kind != phase {
		return "", nil, false
	}
	if !known || len(words) < 3 {
		l := mustFail(Line{})
		return "", &l, true
	}
	line = &PAMLine{Module: strings.TrimSuffix(filepath.Base(words[2]), ".so"), Args: words[3:]}
	switch control := strings.ToLower(words[1]); {
	case control == "include":
		return words[2], nil, true
	case control == "substack":
		return words[2], line, true
	case strings.HasPrefix(control, "["):
		line.Control = pamControl(control)
	default:
		line.Control = pamControls[control]
	}
	return "", line, true
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

var aroundEquals = regexp.MustCompile(`\s*=\s*`)

func pamControl(bracketed string) map[string]string {
	control := map[string]string{}
	bracketed = aroundEquals.ReplaceAllString(strings.Trim(bracketed, "[]"), "=")
	for _, pair := range strings.Fields(bracketed) {
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
