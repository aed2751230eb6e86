package sshd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A PAM stack is judged by trying every way through it: each module may
// succeed, which proves its factor, or fail, be away, or step aside. What the
// stack demands is the least that some way to success proves.

// factor is one kind of proof. Two different ones make two factors.
type factor string

const (
	factorKey      factor = "key"
	factorPIN      factor = "pin" // asked by the security key itself
	factorPassword factor = "password"
	factorCode     factor = "code"
	factorTicket   factor = "ticket" // Kerberos
	factorHost     factor = "host"   // hostbased
	factorLogin    factor = "login"  // a code that a certificate was given for
)

// pamLine is one line of a PAM stack, includes followed.
type pamLine struct {
	Line
	control map[string]string // return value → action, from pam.conf(5)
	module  string            // base name without .so
	args    []string
	sub     []pamLine // a substack
	meant   bool      // oneFactorMark stands above it, or postern ssh config wrote it
}

// pass is one way through a stack to success.
type pass struct {
	factors []factor // sorted, each once
	nullok  *pamLine // it steps over a code because of this line's nullok
	away    *pamLine // it works because this line's service is away
	asked   *pamLine // a line that asks for a code
	ended   *pamLine // the line that ended the stack, or jumped past one that asks for a code
	exempt  *pamLine // a condition on the user that leads past the line that asks for a code
}

var pamControls = map[string]map[string]string{
	"required":   {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
	"requisite":  {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
	"sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
	"optional":   {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}

// pamModules says what a module's success proves; "" proves nothing.
var pamModules = map[string]factor{
	"pam_unix": factorPassword, "pam_sss": factorPassword, "pam_ldap": factorPassword, "pam_krb5": factorPassword,
	"pam_winbind": factorPassword, "pam_userdb": factorPassword, "pam_systemd_home": factorPassword, "pam_pwdfile": factorPassword,
	"pam_postern": factorCode, "pam_yubico": factorCode, "pam_google_authenticator": factorCode, "pam_oath": factorCode,
	"pam_u2f": factorCode, "pam_duo": factorCode, "pam_otpw": factorCode, "pam_barada": factorCode, "pam_privacyidea": factorCode,
	"pam_permit": "", "pam_rootok": "", "pam_faillock": "", "pam_tally2": "", "pam_securetty": "",
}

// pamAsides never let anybody in or keep anybody out in the auth phase, or only
// for reasons that have nothing to do with who it is.
var pamAsides = map[string]bool{
	"pam_env": true, "pam_faildelay": true, "pam_motd": true, "pam_mail": true, "pam_selinux": true, "pam_keyinit": true,
	"pam_group": true, "pam_cap": true, "pam_nologin": true, "pam_warn": true, "pam_echo": true, "pam_debug": true,
	"pam_gnome_keyring": true, "pam_kwallet5": true, "pam_ecryptfs": true, "pam_fprintd": true,
}

// pamConditions branch; which way depends on the user or the client.
var pamConditions = map[string]bool{
	"pam_succeed_if": true, "pam_listfile": true, "pam_access": true, "pam_localuser": true, "pam_usertype": true,
	"pam_time": true, "pam_rhosts": true, "pam_wheel": true, "pam_shells": true, "pam_sepermit": true,
}

// pamStack reads the stack of one phase (auth, account) of a service; one that
// has no file is served by that of "other".
func (h hostFiles) pamStack(service, phase string) ([]pamLine, error) {
	budget := pamFilesMax
	stack, err := h.readPAM(h.pamFile(service), phase, 0, &budget)
	if errors.Is(err, fs.ErrNotExist) {
		return h.readPAM(h.pamFile("other"), phase, 0, &budget)
	}
	return stack, err
}

// pamDirs are where libpam looks for a service's file, in this order: the
// administrator's, then the distribution's.
var pamDirs = []string{"/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"}

// pamFile returns the file of a service, or that a line includes.
func (h hostFiles) pamFile(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	for _, dir := range pamDirs {
		if _, err := os.Stat(h.path(filepath.Join(dir, name))); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return filepath.Join(pamDirs[0], name)
}

// pamFilesMax bounds how many files a stack may include, each time counted.
const pamFilesMax = 256

func (h hostFiles) readPAM(file, phase string, depth int, budget *int) ([]pamLine, error) {
	if *budget--; *budget < 0 {
		return nil, fmt.Errorf("%s: more than %d files are included", file, pamFilesMax)
	}
	b, err := h.read(file)
	if err != nil {
		return nil, err
	}
	var out []pamLine
	number, meant, ours := 0, false, false
	text := strings.ReplaceAll(string(b), "\\\n", " \x00") // continued lines count as lines
	for raw := range strings.Lines(text) {
		number++
		at := Line{File: h.shown(h.path(file)), Line: number, Text: strings.TrimSpace(strings.ReplaceAll(raw, "\x00", ""))}
		number += strings.Count(raw, "\x00")
		words := pamWords(at.Text)
		if len(words) == 0 {
			meant = at.Text == oneFactorMark
			ours = at.Text == pamBegin || ours && at.Text != pamEnd
			continue
		}
		here := meant || ours
		meant = false
		if len(words) >= 2 && words[0] == "@include" && depth < includeDepth {
			more, _ := h.readPAM(h.pamFile(words[1]), phase, depth+1, budget)
			out = append(out, more...)
			continue
		}
		if len(words) < 3 || strings.ToLower(strings.TrimPrefix(words[0], "-")) != phase {
			continue
		}
		line := pamLine{Line: at, module: strings.TrimSuffix(filepath.Base(words[2]), ".so"), args: words[3:], meant: here}
		switch control := strings.ToLower(words[1]); {
		case (control == "include" || control == "substack") && depth < includeDepth:
			sub, _ := h.readPAM(h.pamFile(words[2]), phase, depth+1, budget)
			if control == "include" {
				out = append(out, sub...)
				continue
			}
			line.sub = sub
		case strings.HasPrefix(control, "["):
			line.control = pamControl(control)
		default:
			line.control = pamControls[control]
		}
		out = append(out, line)
	}
	return out, nil
}

// pamWords splits a line at blanks, keeping [bracketed words] together.
func pamWords(line string) []string {
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

// asksCode reports whether the line, or its substack, asks for a code.
func (l pamLine) asksCode() bool {
	return pamModules[l.module] == factorCode || slices.ContainsFunc(l.sub, pamLine.asksCode)
}

// outcome is what a module may answer.
type outcome struct {
	value  string // PAM's name: success, auth_err, authinfo_unavail, ignore
	factor factor
	nullok bool
	away   bool
}

var succeeds = outcome{value: "success"}

// outcomes returns what the line's module may answer for a user.
func (l pamLine) outcomes(c Case) []outcome {
	has := func(arg string) bool { return slices.Contains(l.args, arg) }
	f, known := pamModules[l.module]
	switch {
	case l.module == "pam_deny", l.module == "pam_faillock" && has("authfail"):
		return []outcome{{value: "auth_err"}}
	case l.module == "pam_permit", l.module == "pam_rootok", l.module == "pam_faillock", l.module == "pam_securetty", l.module == "pam_tally2":
		return []outcome{succeeds}
	case pamAsides[l.module]:
		return []outcome{{value: "ignore"}}
	case pamConditions[l.module]:
		if holds, sure := l.condition(c); sure {
			return []outcome{map[bool]outcome{true: succeeds, false: {value: "auth_err"}}[holds]}
		}
		return []outcome{succeeds, {value: "auth_err"}}
	case l.module == "pam_postern" && l.passesBy(c):
		return []outcome{{value: "ignore"}}
	case !known:
		f = factor(l.module)
	}
	out := []outcome{{value: "success", factor: f}, {value: "auth_err"}}
	if f == factorCode {
		out = append(out, outcome{value: "authinfo_unavail", away: true})
		if has("nullok") || has("nouserok") { // pam_u2f's word for it
			out = append(out, outcome{value: "ignore", nullok: true}, outcome{value: "success", nullok: true})
		}
	}
	if l.module == "pam_postern" { // never success without a code
		out = slices.DeleteFunc(out, func(o outcome) bool { return o.nullok && o.value == "success" })
	}
	return out
}

// passesBy reports whether pam_postern's users= leaves the user out.
func (l pamLine) passesBy(c Case) bool {
	for _, arg := range l.args {
		if users, ok := strings.CutPrefix(arg, "users="); ok {
			return !slices.Contains(strings.Split(users, ","), c.User)
		}
	}
	return false
}

// condition evaluates what it can of a condition module, for the case's user.
func (l pamLine) condition(c Case) (holds, sure bool) {
	switch l.module {
	case "pam_localuser":
		return c.uid >= 0, true
	case "pam_usertype":
		return (c.uid >= 1000 || c.uid < 0) == slices.Contains(l.args, "isregular"), true
	case "pam_succeed_if":
		args := slices.DeleteFunc(slices.Clone(l.args), func(a string) bool {
			return a == "quiet" || a == "quiet_success" || a == "quiet_fail" || a == "use_uid" || a == "debug" || a == "audit"
		})
		if len(args)%3 != 0 || len(args) == 0 {
			return false, false
		}
		for ; len(args) > 0; args = args[3:] {
			one, ok := succeedIf(c, args[0], args[1], args[2])
			if !ok || !one {
				return false, ok
			}
		}
		return true, true
	}
	return false, false
}

func succeedIf(c Case, left, op, right string) (holds, sure bool) {
	in := func(one string) bool { return slices.Contains(strings.Split(right, ":"), one) }
	if one, ok := map[string]string{"user": c.User, "service": c.service}[left]; ok {
		switch op {
		case "=", "eq":
			return one == right, true
		case "!=", "ne":
			return one != right, true
		case "in":
			return in(one), true
		case "notin":
			return !in(one), true
		}
	}
	switch left + " " + op {
	case "user ingroup":
		return slices.ContainsFunc(c.groups, in), true
	case "user notingroup":
		return !slices.ContainsFunc(c.groups, in), true
	}
	n, err := strconv.Atoi(right)
	if left != "uid" || err != nil || c.uid < 0 {
		return false, false
	}
	switch op {
	case "=", "eq":
		return c.uid == n, true
	case "!=", "ne":
		return c.uid != n, true
	case "<", "lt":
		return c.uid < n, true
	case "<=", "le":
		return c.uid <= n, true
	case ">", "gt":
		return c.uid > n, true
	case ">=", "ge":
		return c.uid >= n, true
	}
	return false, false
}

// walk is libpam's dispatch, for all outcomes at once.
type walk struct {
	c      Case
	steps  int
	passes []pass
}

// walkMax bounds the ways tried; a stack with more is not judged by more.
const walkMax = 200000

// passes returns the least demanding ways through a stack.
func passes(stack []pamLine, c Case) []pass {
	w := &walk{c: c}
	w.run(stack, state{}, func(s state) {
		if s.good && !s.bad {
			w.add(s.pass)
		}
	})
	return w.passes
}

// state is libpam's impression so far. Bad is never left, but by reset.
type state struct {
	good, bad bool
	pass      pass
}

// run walks lines from s and calls end for each state at the end.
func (w *walk) run(lines []pamLine, s state, end func(state)) {
	if w.steps++; w.steps > walkMax {
		return
	}
	if len(lines) == 0 {
		end(s)
		return
	}
	l, rest := lines[0], lines[1:]
	if l.sub != nil {
		w.run(l.sub, s, func(s state) { w.run(rest, s, end) })
		return
	}
	for _, o := range l.outcomes(w.c) {
		next := s
		next.pass = s.pass.with(&l, o)
		action, ok := l.control[o.value]
		if !ok {
			action, ok = l.control["default"]
		}
		if !ok {
			action = "bad"
		}
		switch action {
		case "ignore":
			w.run(rest, next, end)
		case "ok", "done":
			if o.value != "success" {
				// It takes over a failure as the result.
				next.bad = next.bad || o.value != "ignore"
			} else if !next.bad {
				next.good = true
			}
			if action == "done" && next.good && !next.bad {
				next.pass.ended = &l
				end(next)
				continue
			}
			w.run(rest, next, end)
		case "bad":
			next.bad = true
			w.run(rest, next, end)
		case "die":
			next.bad = true
			end(next)
		case "reset":
			next.good, next.bad = false, false
			w.run(rest, next, end)
		default:
			n, err := strconv.Atoi(action)
			if err != nil || n < 0 || n > len(rest) {
				n = len(rest)
			}
			if slices.ContainsFunc(rest[:n], pamLine.asksCode) {
				if pamConditions[l.module] {
					next.pass.exempt = &l
				} else {
					next.pass.ended = &l
				}
			}
			w.run(rest[n:], next, end)
		}
	}
}

// leavesOut reports whether the pass gets by without a code that the stack
// asks others for.
func (p pass) leavesOut(stack []pamLine) bool {
	return p.exempt == nil && p.nullok == nil && p.away == nil && !slices.Contains(p.factors, factorCode) && slices.ContainsFunc(stack, pamLine.asksCode)
}

// with returns the pass after the module answered o.
func (p pass) with(l *pamLine, o outcome) pass {
	if o.value == "success" && o.factor != "" && !slices.Contains(p.factors, o.factor) {
		p.factors = append(slices.Clone(p.factors), o.factor)
		slices.Sort(p.factors)
	}
	if l.asksCode() && p.asked == nil && o.value != "ignore" {
		p.asked = l
	}
	if l.asksCode() && o.value == "ignore" && !o.nullok {
		p.exempt = l
	}
	if o.nullok && p.nullok == nil {
		p.nullok = l
	}
	if o.away && p.away == nil {
		p.away = l
	}
	return p
}

// add keeps p unless a pass that is there demands no more, and drops those that
// demand more than p.
func (w *walk) add(p pass) {
	if slices.ContainsFunc(w.passes, func(q pass) bool { return q.beats(p) }) {
		return
	}
	w.passes = append(slices.DeleteFunc(w.passes, p.beats), p)
}

// beats reports whether p demands nothing that q does without, and needs no
// service away and no nullok where q needs none.
func (p pass) beats(q pass) bool {
	for _, f := range p.factors {
		if !slices.Contains(q.factors, f) {
			return false
		}
	}
	return (p.away == nil || q.away != nil) && (p.nullok == nil || q.nullok != nil)
}
