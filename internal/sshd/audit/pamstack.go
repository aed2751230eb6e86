package audit

import (
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

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

// pass is one way through a stack to success.
type pass struct {
	factors     []factor          // sorted, each once
	nullok      *hostconf.PAMLine // it steps over a code because of this line's nullok
	unknown     *hostconf.PAMLine // it works because this line's module does not know the account
	unavailable *hostconf.PAMLine // it works because this line's service is unavailable
	asked       *hostconf.PAMLine // a line that asks for a code
	ended       *hostconf.PAMLine // the line that ended the stack, or jumped past one that asks for a code
	exempt      *hostconf.PAMLine // a condition on the user that leads past the line that asks for a code
}

// pamModules says what a module's success proves; "" proves nothing.
var pamModules = map[string]factor{
	"pam_unix":         factorPassword,
	"pam_sss":          factorPassword,
	"pam_ldap":         factorPassword,
	"pam_krb5":         factorPassword,
	"pam_winbind":      factorPassword,
	"pam_userdb":       factorPassword,
	"pam_systemd_home": factorPassword,
	"pam_pwdfile":      factorPassword,
	"pam_permit":       "",
	"pam_rootok":       "",
	"pam_faillock":     "",
	"pam_tally2":       "",
	"pam_securetty":    "",
}

// pamAsides are modules that neither grant nor refuse access in the auth phase, or only for
// reasons that do not depend on the user.
var pamAsides = map[string]bool{
	"pam_env":           true,
	"pam_faildelay":     true,
	"pam_motd":          true,
	"pam_mail":          true,
	"pam_selinux":       true,
	"pam_keyinit":       true,
	"pam_group":         true,
	"pam_cap":           true,
	"pam_nologin":       true,
	"pam_warn":          true,
	"pam_echo":          true,
	"pam_gnome_keyring": true,
	"pam_kwallet5":      true,
	"pam_ecryptfs":      true,
	"pam_fprintd":       true,
}

// pamConditions branch; which way depends on the user or the client.
var pamConditions = map[string]bool{
	"pam_succeed_if": true, "pam_listfile": true, "pam_access": true, "pam_localuser": true, "pam_usertype": true,
	"pam_time": true, "pam_rhosts": true, "pam_wheel": true, "pam_shells": true, "pam_sepermit": true,
}

// outcome is what a module may answer.
type outcome struct {
	value       string // PAM's name: success, auth_err, authinfo_unavail, ignore
	factors     []factor
	nullok      bool
	unknown     bool // the module does not know the account
	unavailable bool // the module's service is unavailable
	exempt      bool // the module asks others
}

var succeeds = outcome{value: "success"}

// failures are the return values of a module that did not succeed, as pam.conf(5)
// names them (_pam_types.h). ignore is not among them.
var failures = []string{
	"auth_err", "user_unknown", "authinfo_unavail", "open_err", "symbol_err", "service_err", "system_err", "buf_err",
	"perm_denied", "cred_insufficient", "maxtries", "new_authtok_reqd", "acct_expired", "session_err", "cred_unavail",
	"cred_expired", "cred_err", "no_module_data", "conv_err", "authtok_err", "authtok_recover_err",
	"authtok_lock_busy", "authtok_disable_aging", "try_again", "abort", "authtok_expired", "module_unknown",
	"bad_item", "conv_again", "incomplete",
}

// failuresOf returns the failures of the line's module, one for each action that the
// line takes on them: the walk need not try the others. What user_unknown and
// authinfo_unavail say is kept apart.
func failuresOf(l hostconf.PAMLine) []outcome {
	var out []outcome
	tried := map[string]bool{}
	for _, value := range failures {
		o := outcome{value: value, unknown: value == "user_unknown", unavailable: value == "authinfo_unavail"}
		if l.Module == "pam_unix" && o.unknown {
			continue // sshd refuses an account that NSS does not know
		}
		if action := actionOf(l, value); !tried[action] {
			tried[action] = true
			out = append(out, o)
		}
	}
	return out
}

// actionOf returns what the line does about a return value.
func actionOf(l hostconf.PAMLine, value string) string {
	action, ok := l.Control[value]
	if !ok {
		action, ok = l.Control["default"]
	}
	if !ok {
		return "bad"
	}
	return action
}

// outcomes returns what the line's module may answer for a user.
func outcomes(l hostconf.PAMLine, c hostconf.Case) []outcome {
	has := func(arg string) bool { return slices.Contains(l.Args, arg) }
	f, known := pamModules[l.Module]
	if hostconf.CodeModules[l.Module] {
		f, known = factorCode, true
	}
	switch {
	case l.Module == "pam_deny", l.Module == "pam_faillock" && has("authfail"):
		return []outcome{{value: "auth_err"}}
	case l.Module == "pam_permit",
		l.Module == "pam_rootok",
		l.Module == "pam_faillock",
		l.Module == "pam_securetty",
		l.Module == "pam_tally2":
		return []outcome{succeeds}
	case l.Module == "pam_debug":
		return []outcome{{value: debugValue(l)}}
	case pamAsides[l.Module]:
		return []outcome{{value: "ignore"}}
	case pamConditions[l.Module]:
		if holds, sure := condition(l, c); sure {
			return map[bool][]outcome{true: {succeeds}, false: refusals(l)}[holds]
		}
		return append([]outcome{succeeds}, refusals(l)...)
	case l.Module == "pam_postern" && passesBy(l, c):
		return []outcome{{value: "ignore"}}
	case l.Module == "pam_duo" && passesBy(l, c):
		return []outcome{{value: "success", exempt: true}}
	case !known:
		f = factor(l.Module)
	}
	return attempts(l, f)
}

// debugValue returns what pam_debug returns: its option auth= (pam_debug(8)).
func debugValue(l hostconf.PAMLine) string {
	value := "success"
	for _, arg := range l.Args {
		if v, ok := strings.CutPrefix(arg, "auth="); ok {
			value = v
		}
	}
	return value
}

// refusals returns what a condition that does not hold may answer.
func refusals(l hostconf.PAMLine) []outcome {
	out := []outcome{{value: "auth_err"}, {value: "perm_denied"}}
	if actionOf(l, "auth_err") == actionOf(l, "perm_denied") {
		return out[:1]
	}
	return out
}

// attempts returns what a module that proves f may answer.
func attempts(l hostconf.PAMLine, f factor) []outcome {
	proves := []factor{f}
	if l.Own.AsksCode {
		proves = []factor{factorCode, f}
	}
	if f == "" {
		proves = nil
	}
	out := append([]outcome{{value: "success", factors: proves}}, failuresOf(l)...)
	if l.Own.FailsOpen {
		out = append(out, outcome{value: "success", unavailable: true})
	}
	if f != factorCode ||
		!slices.Contains(l.Args, "nullok") && !slices.Contains(l.Args, "nouserok") { // pam_u2f's word for it
		return out
	}
	out = append(out, outcome{value: "ignore", nullok: true})
	if l.Module != "pam_postern" { // never success without a code
		out = append(out, outcome{value: "success", nullok: true})
	}
	return out
}

// passesBy reports whether pam_postern's users=, or Duo's groups=, leaves the user
// out.
func passesBy(l hostconf.PAMLine, c hostconf.Case) bool {
	if !l.Own.Asks(c.Groups) {
		return true
	}
	for _, arg := range l.Args {
		if users, ok := strings.CutPrefix(arg, "users="); ok {
			return !slices.Contains(strings.Split(users, ","), c.User)
		}
	}
	return false
}

// condition evaluates what it can of a condition module, for the case's user.
func condition(l hostconf.PAMLine, c hostconf.Case) (holds, sure bool) {
	switch l.Module {
	case "pam_localuser":
		return c.Local, true
	case "pam_usertype":
		return (c.UID >= firstOrdinary || c.UID < 0) == slices.Contains(l.Args, "isregular"), true
	case "pam_succeed_if":
		args := slices.DeleteFunc(slices.Clone(l.Args), func(a string) bool {
			return a == "quiet" || a == "quiet_success" || a == "quiet_fail" || a == "use_uid" || a == "debug" ||
				a == "audit"
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

// firstOrdinary is the first number of a person's account (UID_MIN of login.defs(5)).
const firstOrdinary = 1000

func succeedIf(c hostconf.Case, left, op, right string) (holds, sure bool) {
	in := func(one string) bool { return slices.Contains(strings.Split(right, ":"), one) }
	if one, ok := map[string]string{"user": c.User, "service": c.Service}[left]; ok {
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
		return slices.ContainsFunc(c.Groups, in), true
	case "user notingroup":
		return !slices.ContainsFunc(c.Groups, in), true
	}
	n, err := strconv.Atoi(right)
	if left != "uid" || err != nil || c.UID < 0 && n > firstOrdinary {
		return false, false
	}
	if c.UID < 0 {
		c.UID = firstOrdinary + 1 // a person's, wherever the account is
	}
	switch op {
	case "=", "eq":
		return c.UID == n, true
	case "!=", "ne":
		return c.UID != n, true
	case "<", "lt":
		return c.UID < n, true
	case "<=", "le":
		return c.UID <= n, true
	case ">", "gt":
		return c.UID > n, true
	case ">=", "ge":
		return c.UID >= n, true
	}
	return false, false
}

// walk is libpam's dispatch, for all outcomes at once.
type walk struct {
	c      hostconf.Case
	steps  int
	passes []pass
}

// walkMax bounds the ways tried; a stack with more is not judged by more.
const walkMax = 200000

// passes returns the least demanding ways through a stack.
func passes(stack []hostconf.PAMLine, c hostconf.Case) []pass {
	w := &walk{c: c}
	w.run(stack, state{}, func(s state) {
		if s.good && !s.failed && !s.bad {
			w.add(s.pass)
		}
	})
	return w.passes
}

// impression is libpam's, of the lines so far (pam_dispatch.c). It succeeds if it is
// good alone. What failed or is bad stays so, but for a reset.
type impression struct {
	good   bool // a success was taken for the result
	failed bool // a failure was, by ok or done
	bad    bool // by bad or die
}

// state is where a walk is.
type state struct {
	impression
	entry impression // with which the substack began, to which a reset leads back
	pass  pass
}

// run walks lines from s and calls end for each state at the end.
func (w *walk) run(lines []hostconf.PAMLine, s state, end func(state)) {
	if w.steps++; w.steps > walkMax {
		return
	}
	if len(lines) == 0 {
		end(s)
		return
	}
	l, rest := lines[0], lines[1:]
	if l.Sub != nil {
		outer := s.entry
		s.entry = s.impression
		w.run(l.Sub, s, func(s state) { s.entry = outer; w.run(rest, s, end) })
		return
	}
	for _, o := range outcomes(l, w.c) {
		next := s
		next.pass = s.pass.with(&l, o)
		switch action := actionOf(l, o.value); action {
		case "ignore":
			w.run(rest, next, end)
		case "ok", "done":
			next.take(o.value)
			if action == "done" && !next.bad {
				next.pass.skips(&l, rest)
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
			next.impression = next.entry
			w.run(rest, next, end)
		default:
			n, err := strconv.Atoi(action)
			if err != nil || n < 0 || n > len(rest) {
				n, next.bad = len(rest), true // past the end libpam fails
			}
			next.pass.skips(&l, rest[:n])
			w.run(rest[n:], next, end)
		}
	}
}

// take takes a return value for the result: a failure, ignore too, is not left for a
// success.
func (i *impression) take(value string) {
	switch {
	case i.bad:
	case value != "success":
		i.failed = true
	default:
		i.good = true
	}
}

// skips notes that l leads past other lines, if one of them asks for a code.
func (p *pass) skips(l *hostconf.PAMLine, others []hostconf.PAMLine) {
	switch {
	case !slices.ContainsFunc(others, hostconf.PAMLine.AsksCode):
	case pamConditions[l.Module]:
		p.exempt = l
	default:
		p.ended = l
	}
}

// leavesOut reports whether the pass gets by without a code that the stack
// asks others for.
func (p pass) leavesOut(stack []hostconf.PAMLine) bool {
	return p.exempt == nil && p.nullok == nil && p.unknown == nil && p.unavailable == nil &&
		!slices.Contains(p.factors, factorCode) &&
		slices.ContainsFunc(stack, hostconf.PAMLine.AsksCode)
}

// with returns the pass after the module answered o.
func (p pass) with(l *hostconf.PAMLine, o outcome) pass {
	if o.value == "success" {
		p.factors = union(p.factors, o.factors)
	}
	if l.AsksCode() && p.asked == nil && o.value != "ignore" {
		p.asked = l
	}
	if l.AsksCode() && (o.exempt || o.value == "ignore" && !o.nullok) {
		p.exempt = l
	}
	if o.nullok && p.nullok == nil {
		p.nullok = l
	}
	if l.AsksCode() && o.unknown && p.unknown == nil {
		p.unknown = l
	}
	if l.AsksCode() && o.unavailable && p.unavailable == nil {
		p.unavailable = l
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
// service unavailable, no unknown account and no nullok where q needs none.
func (p pass) beats(q pass) bool {
	for _, f := range p.factors {
		if !slices.Contains(q.factors, f) {
			return false
		}
	}
	return (p.unavailable == nil || q.unavailable != nil) && (p.nullok == nil || q.nullok != nil) &&
		(p.unknown == nil || q.unknown != nil)
}
