package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// casesMax bounds how many kinds of connection are tried.
const casesMax = 400

// patterns are the patterns by which a host's files distinguish connections, by the
// attribute of a Match line.
type patterns map[string][]string

func (p patterns) add(attribute string, more ...string) {
	for _, v := range more {
		if v = strings.TrimPrefix(v, "!"); v != "" && !slices.Contains(p[attribute], v) {
			p[attribute] = append(p[attribute], v)
		}
	}
}

// patternsOf collects the patterns of sshd's Match lines, and of its lists of
// whom to allow and deny.
func patternsOf(directives []hostconf.Directive) patterns {
	p := patterns{}
	for _, d := range directives {
		switch d.Keyword {
		case "match":
			for _, m := range hostconf.Criteria(d.Args) {
				p.add(m.Attribute, m.Patterns...)
			}
		case "allowgroups", "denygroups":
			p.add("group", d.Args...)
		case "allowusers", "denyusers":
			for _, arg := range d.Args {
				user, from, _ := strings.Cut(arg, "@")
				p.add("user", user)
				p.add("address", from)
				p.add("host", from)
			}
		}
	}
	return p
}

// cases returns one connection of each kind that sshd's patterns and PAM's
// conditions distinguish: for each attribute a value that meets each pattern, and
// one that meets none. all is false if there are more than are tried.
func cases(p patterns, accounts []account, stack []hostconf.PAMLine, service string) (out []hostconf.Case, all bool) {
	all = true
	for _, a := range candidates(accounts, p, stack) {
		for _, addr := range values(p["address"], "203.0.113.99", someAddresses) {
			for _, host := range values(p["host"], "elsewhere.invalid", someNames) {
				for _, laddr := range values(p["localaddress"], "198.51.100.1", someAddresses) {
					for _, lport := range values(p["localport"], "22", someNames) {
						if all = all && len(out) < casesMax; all {
							out = append(out, hostconf.Case{
								User: a.name, Host: host, Address: addr, LocalAddress: laddr, LocalPort: lport,
								UID: a.UID, Local: a.local, Groups: a.groups, Service: service,
							})
						}
					}
				}
			}
		}
	}
	return out, all
}

// values returns what meets each pattern, and no other if there is such, after one
// that meets none.
func values(patterns []string, other string, some func(pattern string) []string) []string {
	out := []string{other}
	for _, p := range patterns {
		found := some(p)
		if len(found) == 0 {
			continue
		}
		v := found[0]
		for _, candidate := range found {
			others := slices.DeleteFunc(slices.Clone(patterns), func(q string) bool { return q == p || q == "*" })
			if !hostconf.MatchAddress(candidate, others) && !hostconf.MatchList(candidate, others) {
				v = candidate
				break
			}
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// someName returns a word that meets a pattern.
func someName(pattern string) string { return strings.NewReplacer("*", "x", "?", "x").Replace(pattern) }

// someNames returns words that meet a pattern.
func someNames(pattern string) []string { return []string{someName(pattern)} }

// someAddresses returns addresses that meet a pattern or network, none if none is
// found: of a network the last, the first ones, and some between.
func someAddresses(pattern string) (out []string) {
	if p, err := netip.ParsePrefix(pattern); err == nil {
		for _, host := range []byte{0xff, 0x01, 0x02, 0x55, 0xaa, 0xfe, 0x77, 0x10} {
			b := p.Addr().AsSlice()
			for i := p.Bits(); i < len(b)*8; i++ {
				ones := host == 0xff || host > 2 && i < len(b)*8-8 || i >= len(b)*8-8
				if bit := byte(0x80) >> (i % 8); ones && host&bit != 0 {
					b[i/8] |= bit
				}
			}
			a, _ := netip.AddrFromSlice(b)
			out = append(out, a.String())
		}
		return out
	}
	digits := strings.NewReplacer("*", "77", "?", "7").Replace(pattern)
	for _, more := range []string{"", ".77", ".77.77", ".77.77.77", "::77", ":77"} {
		if v := digits + more; hostconf.MatchAddress(v, []string{pattern}) {
			out = append(out, v)
		}
	}
	return out
}

// candidates returns one account of each kind that may log in or is named, root
// last, and one more for what no account of the host's files is: an ordinary
// one, and one for each user pattern. An ordinary account stands for its kind
// rather than a system account.
func candidates(accounts []account, p patterns, stack []hostconf.PAMLine) []account {
	accounts = slices.Clone(accounts)
	slices.SortStableFunc(accounts, func(a, b account) int { return cmp.Compare(a.rank(), b.rank()) })
	var others, roots []account
	seen := map[string]bool{}
	ordinary := false
	for _, a := range accounts {
		named := p.name(a)
		if !named && !a.mayLogIn() && a.UID != 0 {
			continue
		}
		ordinary = ordinary || !named && a.UID >= 1000
		k := a.kind(p, stack)
		switch {
		case seen[k]:
		case a.UID == 0:
			roots = append(roots, a)
		default:
			others = append(others, a)
		}
		seen[k] = true
	}
	someone := account{name: "someone", UID: -1}
	if !ordinary || asksWhere(stack) && !seen[someone.kind(p, stack)] {
		others = append(others, someone)
	}
	for _, pattern := range p["user"] {
		if !slices.ContainsFunc(accounts, func(a account) bool { return hostconf.Wildcard(pattern, a.name) }) {
			others = append(others, account{name: someName(pattern), UID: -1})
		}
	}
	if len(roots) == 0 {
		roots = []account{{name: "root"}}
	}
	return append(others, roots...)
}

// asksWhere reports whether a stack treats a directory's accounts differently.
func asksWhere(stack []hostconf.PAMLine) bool {
	return slices.ContainsFunc(stack, func(l hostconf.PAMLine) bool {
		return l.Module == "pam_localuser" || asksWhere(l.Sub)
	})
}

// name reports whether some pattern is for accounts such as a.
func (p patterns) name(a account) bool {
	meets := func(names ...string) func(string) bool {
		return func(pattern string) bool {
			return pattern != "*" &&
				slices.ContainsFunc(names, func(n string) bool { return hostconf.Wildcard(pattern, n) })
		}
	}
	return slices.ContainsFunc(p["user"], meets(a.name)) || slices.ContainsFunc(p["group"], meets(a.groups...))
}

// kind says which of sshd's patterns and PAM's conditions an account meets. Accounts of
// the same kind are treated alike.
func (a account) kind(p patterns, stack []hostconf.PAMLine) string {
	k := fmt.Append(nil, a.UID == 0)
	for _, opens := range []*keys{a.keys, a.certificates} {
		if opens != nil {
			k = fmt.Append(k, *opens)
		}
		k = fmt.Append(k, ";")
	}
	for _, pattern := range p["user"] {
		k = fmt.Append(k, hostconf.Wildcard(pattern, a.name))
	}
	for _, pattern := range p["group"] {
		k = fmt.Append(k, slices.ContainsFunc(a.groups, func(g string) bool { return hostconf.Wildcard(pattern, g) }))
	}
	return string(appendConditions(k, stack, hostconf.Case{
		User: a.name, UID: a.UID, Local: a.local,
		Groups: a.groups,
	}))
}

func appendConditions(k []byte, stack []hostconf.PAMLine, c hostconf.Case) []byte {
	for _, l := range stack {
		holds, _ := condition(l, c)
		k = appendConditions(fmt.Append(k, holds, passesBy(l, c)), l.Sub, c)
	}
	return k
}
