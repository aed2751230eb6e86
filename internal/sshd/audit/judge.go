package audit

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// judgeAccesses finds the ways in that prove less than two things.
func (a *audit) judgeAccesses() {
	if !a.intended() {
		if i := slices.IndexFunc(a.accesses, func(d access) bool { return len(d.paths) > 0 }); i >= 0 {
			d := a.accesses[i]
			a.add(Finding{
				ID:       "no-second-factor",
				Severity: High,
				Title:    "one factor opens everything; nothing asks for a second one",
				Where:    a.setBy(d, "authenticationmethods"),
				Case:     d.c.String(),
				Proof:    a.ssh(d, d.paths[0], "true"),
				try:      proveLogin(d, d.paths[0]),
				opens:    true,
				Fix:      "have sshd ask for a second factor",
			})
		}
		return
	}
	for _, d := range a.accesses {
		for _, p := range d.paths {
			if !p.two() {
				a.judgeWeak(d, p)
			} else if p.pam != nil && p.pam.leavesOut(a.stack) && !p.has(factorLogin) && !p.has(factorPIN) {
				a.judgeLeftOut(d, p)
			}
		}
		a.judgeTouch(d)
		if d.s.is("permitemptypasswords", "yes") {
			a.add(Finding{
				ID: "empty-passwords", Severity: Critical, Title: "an account without a password needs none",
				Where: a.setBy(d, "permitemptypasswords"), Case: d.c.String(),
				Proof: a.ssh(d, path{methods: []string{"none"}}, "true"), Fix: "PermitEmptyPasswords no", opens: true,
			})
		}
	}
}

// decisive are the keywords that may grant access with less.
var decisive = []string{
	"authenticationmethods",
	"permitrootlogin",
	"passwordauthentication",
	"kbdinteractiveauthentication",
	"challengeresponseauthentication",
	"pubkeyauthentication",
	"gssapiauthentication",
	"hostbasedauthentication",
	"permitemptypasswords",
	"authorizedkeysfile",
	"authorizedkeyscommand",
	"trustedusercakeys",
	"forcecommand",
}

// judgeUntried reports Match blocks that hold for no connection that was tried, so
// that it is unknown what they grant.
func (a *audit) judgeUntried() {
	for _, l := range a.directives {
		holds := func(d access) bool { return l.Applies(d.c) }
		if !slices.Contains(decisive, l.Keyword) || l.File == hostconf.DropIn ||
			slices.ContainsFunc(a.accesses, holds) {
			continue
		}
		a.add(Finding{
			ID:       "match-untried",
			Severity: Low,
			Title: "no account and no connection that is known here meets this line's Match: what it permits was " +
				"not tried",
			Where: l.Line,
			Proof: "sshd -T -C user=USER,host=HOST,addr=ADDRESS of an account that it is for",
			Fix:   "remove the block if it is not needed any more",
		})
	}
}

// intended reports whether an administrator meant this host to ask for two factors.
func (a *audit) intended() bool {
	return slices.ContainsFunc(a.stack, hostconf.PAMLine.AsksCode) ||
		slices.ContainsFunc(a.accesses, func(d access) bool {
			return a.gate(d) != nil || d.s.asksForPIN() || slices.ContainsFunc(d.paths, path.two)
		})
}

// meant reports whether an administrator wrote down that one factor is enough for an
// access. The mark has no effect where its line hides another.
func (a *audit) meant(d access) bool {
	return d.methods != nil && d.methods.Meant && a.hiddenBy(d.methods) == nil
}

// hiddenBy returns a line outside of Match blocks that asks for something else
// than the first such line, which is the one that takes effect.
func (a *audit) hiddenBy(first *hostconf.Directive) *hostconf.Directive {
	i := slices.IndexFunc(a.directives, func(d hostconf.Directive) bool {
		return first.Match == nil && d.Match == nil && d.Keyword == first.Keyword && !slices.Equal(d.Args, first.Args)
	})
	if i < 0 {
		return nil
	}
	return &a.directives[i]
}

// judgeWeak explains a way in that proves less than two things.
func (a *audit) judgeWeak(d access, p path) {
	f := Finding{
		Severity: Critical,
		Case:     d.c.String(),
		Proof:    a.ssh(d, p, "true"),
		try:      proveLogin(d, p),
		opens:    true,
	}
	methods, what := strings.Join(p.methods, ","), "everything"+d.unseen(p)
	forced := a.opens(d, p)
	if forced != nil {
		what = forced.what
	}
	right := "AuthenticationMethods publickey,keyboard-interactive:pam"
	f.Where, f.Fix = a.setBy(d, "authenticationmethods"), right+"; where one factor is meant, the line "+
		hostconf.OneFactorMark+" above it"
	switch {
	case a.gate(d) != nil:
		return // judgeChannels reports it
	case forced != nil && (a.meant(d) || forced.beside == nil && a.meantCommand(d)):
		return
	case d.c.UID == 0:
		f.ID, f.Title = "root-way-round", fmt.Sprintf("root logs in by %s alone, which opens %s", methods, what)
		f.Where, f.Fix = a.setBy(d, "permitrootlogin"), "PermitRootLogin no"
	case a.meant(d):
		return
	case d.methods != nil && d.methods.Meant:
		f.ID, f.Title = "methods-hidden", fmt.Sprintf("%s has no effect: sshd takes the first AuthenticationMethods",
			a.hiddenBy(d.methods))
		f.Fix = "remove the first line, or write the configuration of sshd again"
	case p.pam == nil && d.methods == nil && slices.ContainsFunc(a.stack, hostconf.PAMLine.AsksCode):
		f.ID, f.Title = "pam-skipped", fmt.Sprintf("%s succeeds without PAM, which alone asks for the code", methods)
	case p.byKey() && d.s.asksForPIN():
		f.ID, f.Title = "key-beside-hardware",
			"an ordinary key opens "+what+" beside security keys, of which a PIN is required"
		f.Where, f.Fix = a.setBy(d, "pubkeyacceptedalgorithms"), "PubkeyAcceptedAlgorithms "+
			"sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com"
	case p.byKey() && d.s.onlySecurityKeys():
		f.ID, f.Title = "touch-alone", "a touch of a security key opens "+what+": sshd does not require its PIN"
		f.Where, f.Fix = a.setBy(d, "pubkeyauthoptions"), "PubkeyAuthOptions touch-required verify-required"
	case p.pam == nil && slices.ContainsFunc(d.paths, path.two):
		f.ID, f.Title = "weak-alternative", fmt.Sprintf("%s alone opens what another way asks two factors for",
			methods)
	case p.pam == nil:
		f.ID, f.Title = "one-factor", fmt.Sprintf("%s alone opens %s", methods, what)
	case p.pam.unavailable != nil:
		f.ID, f.Title = "pam-fail-open", "an attacker who makes the validation service unreachable needs no code"
		f.Where, f.Fix = p.pam.unavailable.Line, p.pam.unavailable.FixOfFailOpen()
		f.Severity = High
	case p.pam.nullok != nil:
		f.ID, f.Title = "pam-nullok", "an account that was not enrolled needs no code"
		f.Where, f.Fix = p.pam.nullok.Line, "remove nullok once all accounts are enrolled"
		f.Severity = High
	case p.pam.unknown != nil:
		f.ID, f.Title = "pam-user-unknown", fmt.Sprintf("an account that %s does not know needs no code",
			p.pam.unknown.Module)
		f.Where, f.Fix = p.pam.unknown.Line, "auth required "+p.pam.unknown.Module+".so, or user_unknown=die"
		f.Severity = High
	case p.pam.exempt != nil && !p.has(factorCode):
		if p.pam.exempt.Meant {
			return
		}
		f.ID, f.Title = "pam-exempt", "PAM asks some for no code, and nothing else asks them for a second factor"
		f.Where, f.Fix = p.pam.exempt.Line, p.pam.exempt.FixOfExemption()+"; where it is meant, the line "+
			hostconf.OneFactorMark+" above it"
	case p.pam.leavesOut(a.stack):
		a.judgeLeftOut(d, p)
		return
	case p.has(factorCode):
		f.ID, f.Title = "code-alone", "the code alone is enough: neither a key nor a password is asked for with it"
		f.Where, f.Fix = p.pam.asked.Line, right+", or auth requisite "+p.pam.asked.Module+".so above the password"
	default:
		f.ID, f.Title = "one-factor", fmt.Sprintf("%s alone opens %s", methods, what)
	}
	a.add(a.limited(d, p, f, forced))
}

// judgeTouch finds keys that sign without a touch where a security key is both factors:
// whatever runs on the computer that it is plugged into can then use it unseen.
func (a *audit) judgeTouch(d access) {
	if d.keys == nil || len(d.keys.untouched) == 0 || d.s.hasKeyOption("touch-required") ||
		!slices.ContainsFunc(d.paths, func(p path) bool { return p.has(factorPIN) }) {
		return
	}
	a.add(Finding{
		ID: "no-touch", Severity: Medium,
		Title: "authorized_keys waives the touch of a security key",
		Where: d.keys.untouched[0], Case: d.c.String(),
		Proof: "log in with that key, made by ssh-keygen -O no-touch-required, without touching it",
		Fix:   "PubkeyAuthOptions touch-required verify-required, which the key's options cannot waive",
	})
}

// meantCommand reports whether an administrator wrote down that one factor is enough for
// what ForceCommand opens.
func (a *audit) meantCommand(d access) bool {
	l := a.directive(d.c, "forcecommand")
	return l != nil && l.Meant
}

// judgeLeftOut explains a way through PAM on which the code can be left out.
func (a *audit) judgeLeftOut(d access, p path) {
	f := Finding{
		ID:       "pam-sufficient",
		Severity: Critical,
		Case:     d.c.String(),
		Title:    "PAM's stack succeeds without the code",
		Where:    hostconf.Line{File: a.PAMFile(a.service)},
		Proof:    a.ssh(d, p, "true"),
		Fix:      "auth required, with the code's module, above whatever can end the stack",
		opens:    true,
	}
	if p.two() {
		f.Severity, f.opens = High, false
	}
	if by := cmp.Or(p.pam.ended, p.pam.asked); by != nil {
		f.Where = by.Line
	}
	a.add(f)
}

// ssh returns the command that goes in by a path, with options or a command.
func (a *audit) ssh(d access, p path, what ...string) string {
	args := []string{"ssh", "-o", "PreferredAuthentications=" + p.preferred()}
	if a.port != "" && a.port != "22" {
		args = append(args, "-p", a.port)
	}
	if len(what) > 0 && strings.HasPrefix(what[0], "-") {
		args, what = append(args, what...), nil
	}
	return strings.Join(append(append(args, d.c.User+"@HOST"), what...), " ")
}

// preferred is the path for ssh's PreferredAuthentications.
func (p path) preferred() string {
	var methods []string
	for _, m := range p.methods {
		m, _, _ = strings.Cut(m, ":")
		methods = append(methods, m)
	}
	return strings.Join(methods, ",")
}

// gateScript is a ForceCommand that asks for a second factor.
type gateScript struct {
	path    string // of the program; may be empty
	text    string // what it says, if it is a script
	postern bool   // postern ssh shell
	config  string // the file of settings of postern ssh shell
}

// gate returns the ForceCommand that acts as a factor, or nil.
func (a *audit) gate(d access) *gateScript {
	command := d.s.first("forcecommand")
	words := strings.Fields(command)
	if len(words) == 0 || command == "none" || command == "internal-sftp" {
		return nil
	}
	if strings.HasSuffix(words[0], "postern") && slices.Contains(words, "shell") {
		return &gateScript{
			path:    words[0],
			postern: true,
			config:  optionOf(words, "--config", hostconf.ShellConfigFile),
		}
	}
	for _, w := range words { // sh /path/to/script, sudo …
		if !filepath.IsAbs(w) {
			continue
		}
		b, _ := a.Read(w)
		text := string(b)
		if strings.HasPrefix(text, "#!") && gateWords.MatchString(text) || gateWords.MatchString(filepath.Base(w)) {
			if !strings.HasPrefix(text, "#!") {
				text = ""
			}
			return &gateScript{path: w, text: text}
		}
	}
	return nil
}

// optionOf returns what a command's words give for an option, or else absent.
func optionOf(words []string, name, absent string) string {
	for i, w := range words {
		if v, ok := strings.CutPrefix(w, name+"="); ok {
			return v
		}
		if w == name && i+1 < len(words) {
			return words[i+1]
		}
	}
	return absent
}
