package audit

import (
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// access is what sshd demands of one kind of connection.
type access struct {
	c       hostconf.Case
	s       settings
	methods *hostconf.Directive // the AuthenticationMethods written down for it; may be nil
	paths   []path              // the ways in
	keys    *keys               // the account's; nil: none are known
	// certificates are what those of the CAs that sshd trusts open; nil: that is not known.
	certificates *keys
}

// path is one way in: methods that sshd wants in order, and what they prove.
type path struct {
	methods []string
	factors []factor
	pam     *pass // through PAM's auth stack, if a method goes there
}

func (p path) two() bool { return len(p.factors) >= 2 }

// byKey reports whether a key is all that a way in asks for.
func (p path) byKey() bool {
	return len(p.methods) > 0 && !slices.ContainsFunc(p.methods, func(m string) bool { return m != "publickey" })
}

func (p path) has(f factor) bool { return slices.Contains(p.factors, f) }

// newAccess works out the ways in.
func newAccess(c hostconf.Case, s settings, stack []hostconf.PAMLine, k *keys) access {
	d := access{c: c, s: s, keys: k}
	forcedOnly := c.UID == 0 && s.is("permitrootlogin", "forced-commands-only")
	if !admitted(c, s) || forcedOnly && (k == nil || len(k.commands) == 0) {
		return d
	}
	lists := strings.Fields(s.first("authenticationmethods"))
	if len(lists) == 0 || lists[0] == "any" {
		lists = []string{"publickey", "password", "keyboard-interactive", "gssapi-with-mic", "hostbased"}
	}
	through := passes(stack, c)
	for _, list := range lists {
		d.paths = append(d.paths, ways(c, s, strings.Split(list, ","), through)...)
	}
	return d
}

// ways returns the paths that one list of methods gives; none if sshd does not offer one
// of them.
func ways(c hostconf.Case, s settings, methods []string, through []pass) []path {
	out := []path{{methods: methods}}
	for _, m := range methods {
		m, _, _ = strings.Cut(m, ":")
		own, usesPAM, ok := methodFactors(c, s, m)
		if !ok {
			return nil
		}
		if !usesPAM {
			for i := range out {
				out[i].factors = union(out[i].factors, own)
			}
			continue
		}
		var next []path
		for _, p := range out {
			if p.pam != nil { // a second trip through the same stack proves nothing more
				next = append(next, p)
				continue
			}
			for i := range through {
				next = append(next, path{
					methods: methods, factors: union(p.factors, through[i].factors),
					pam: &through[i],
				})
			}
		}
		out = next
	}
	return out
}

// methodFactors returns what a method proves, or that PAM decides it; ok is
// false where sshd does not offer it.
func methodFactors(c hostconf.Case, s settings, method string) (proves []factor, usesPAM, ok bool) {
	root := c.UID == 0
	byWord := !root || s.is("permitrootlogin", "yes")
	switch method {
	case "publickey":
		return keyFactors(s), false, s.is("pubkeyauthentication", "yes")
	case "password":
		return []factor{factorPassword}, s.is("usepam", "yes"), byWord && s.is("passwordauthentication", "yes")
	case "keyboard-interactive":
		return nil, true, byWord && s.is("kbdinteractiveauthentication", "yes") && s.is("usepam", "yes")
	case "gssapi-with-mic", "gssapi-keyex":
		return []factor{factorTicket}, false, s.is("gssapiauthentication", "yes")
	case "hostbased":
		return []factor{factorHost}, false, s.is("hostbasedauthentication", "yes")
	case "none":
		return nil, false, byWord && s.is("permitemptypasswords", "yes")
	}
	return nil, false, false
}

// keyFactors returns the factors that the publickey method proves. A certificate also
// proves the sign-in that it was issued after, if sshd accepts no bare keys; a security
// key also proves its PIN, if sshd requires that and accepts no other keys.
func keyFactors(s settings) []factor {
	onlyCertificates := s.is("authorizedkeysfile", "none") && s.is("authorizedkeyscommand", "none") &&
		!s.is("trustedusercakeys", "none") &&
		s.first("trustedusercakeys") != ""
	if onlyCertificates {
		return []factor{factorKey, factorLogin}
	}
	if s.onlySecurityKeys() && s.asksForPIN() {
		return []factor{factorKey, factorPIN}
	}
	return []factor{factorKey}
}

// onlySecurityKeys reports whether sshd accepts the keys of security keys (FIDO U2F and
// FIDO2) alone.
func (s settings) onlySecurityKeys() bool {
	return !slices.ContainsFunc(strings.Split(s.first("pubkeyacceptedalgorithms"), ","), func(a string) bool {
		return !strings.HasPrefix(a, "sk-") && !strings.HasPrefix(a, "webauthn-sk-")
	})
}

// asksForPIN reports whether sshd requires of every security key that it verified its
// user, mostly by a PIN.
func (s settings) asksForPIN() bool { return s.hasKeyOption("verify-required") }

// hasKeyOption reports whether PubkeyAuthOptions has an option.
func (s settings) hasKeyOption(name string) bool {
	return slices.Contains(strings.Fields(strings.Join(s["pubkeyauthoptions"], " ")), name)
}

// admitted applies PermitRootLogin and the allow and deny lists.
func admitted(c hostconf.Case, s settings) bool {
	if c.UID == 0 && s.is("permitrootlogin", "no") {
		return false
	}
	user := func(p string) bool {
		name, from, ok := strings.Cut(p, "@")
		return hostconf.MatchList(c.User, []string{name}) &&
			(!ok || hostconf.Wildcard(from, c.Host) || hostconf.MatchAddress(c.Address, []string{from}))
	}
	group := func(p string) bool {
		return slices.ContainsFunc(c.Groups, func(g string) bool { return hostconf.Wildcard(p, g) })
	}
	words := func(keyword string) []string { return strings.Fields(strings.Join(s[keyword], " ")) }
	switch {
	case slices.ContainsFunc(words("denyusers"), user), slices.ContainsFunc(words("denygroups"), group):
		return false
	case len(words("allowusers")) > 0 && !slices.ContainsFunc(words("allowusers"), user):
		return false
	case len(words("allowgroups")) > 0 && !slices.ContainsFunc(words("allowgroups"), group):
		return false
	}
	return true
}

func union(a, b []factor) []factor {
	out := slices.Clone(a)
	for _, f := range b {
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	slices.Sort(out)
	return out
}
