package sshd

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern"
)

// Case is one kind of connection that a Match block may treat differently.
type Case struct {
	User         string `json:"user"`
	Host         string `json:"host,omitempty"`
	Address      string `json:"address"`
	LocalAddress string `json:"local_address,omitempty"`
	LocalPort    string `json:"local_port,omitempty"`

	uid    int // -1: the account does not exist
	groups []string
}

func (c Case) String() string {
	return fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%s", c.User, c.Host, c.Address, c.LocalAddress, c.LocalPort)
}

// account is a line of passwd(5).
type account struct {
	name, home, shell string
	uid               int
	groups            []string
}

// mayLogIn reports whether the account's shell lets anybody in.
func (a account) mayLogIn() bool {
	return a.shell == "" || !slices.Contains([]string{"nologin", "false", "sync", "halt", "shutdown"}, a.shell[strings.LastIndexByte(a.shell, '/')+1:])
}

// accounts reads passwd and group.
func (h hostFiles) accounts() []account {
	passwd, _ := h.read("/etc/passwd")
	group, _ := h.read("/etc/group")
	members := map[string][]string{}
	names := map[string]string{}
	for line := range strings.Lines(string(group)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 {
			continue
		}
		names[f[2]] = f[0]
		for _, user := range strings.Split(f[3], ",") {
			members[user] = append(members[user], f[0])
		}
	}
	var out []account
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 {
			continue
		}
		uid, err := strconv.Atoi(f[2])
		if err != nil {
			continue
		}
		groups := slices.Clone(members[f[0]])
		if primary := names[f[3]]; primary != "" {
			groups = append(groups, primary)
		}
		out = append(out, account{name: f[0], uid: uid, home: f[5], shell: f[6], groups: groups})
	}
	return out
}

// casesMax bounds how many kinds of connection are tried.
const casesMax = 400

// cases returns one connection of each kind that the Match lines tell apart:
// for each attribute a value that meets each pattern, and one that meets none.
func cases(directives []directive, accounts []account) []Case {
	patterns := map[string][]string{}
	var groups []string
	for _, d := range directives {
		if d.keyword != "match" {
			continue
		}
		for _, m := range criteria(d.args) {
			for _, p := range m.patterns {
				p = strings.TrimPrefix(p, "!")
				if m.attribute == "group" {
					groups = append(groups, p)
				} else if !slices.Contains(patterns[m.attribute], p) {
					patterns[m.attribute] = append(patterns[m.attribute], p)
				}
			}
		}
	}
	var out []Case
	for _, a := range candidates(accounts, patterns["user"], groups) {
		for _, addr := range values(patterns["address"], "203.0.113.99") {
			for _, host := range values(patterns["host"], "elsewhere.invalid") {
				for _, laddr := range values(patterns["localaddress"], "198.51.100.1") {
					for _, lport := range values(patterns["localport"], "22") {
						if len(out) < casesMax {
							out = append(out, Case{a.name, host, addr, laddr, lport, a.uid, a.groups})
						}
					}
				}
			}
		}
	}
	return out
}

// values returns what meets each pattern, after one that meets none.
func values(patterns []string, other string) []string {
	out := []string{other}
	for _, p := range patterns {
		v := strings.NewReplacer("*", "x", "?", "x").Replace(p)
		if base, _, ok := strings.Cut(p, "/"); ok {
			v = base
		}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// candidates returns root, an ordinary account, and accounts that meet each
// user and group pattern.
func candidates(accounts []account, users, groups []string) []account {
	var out []account
	add := func(a account) {
		if !slices.ContainsFunc(out, func(b account) bool { return a.name == b.name }) {
			out = append(out, a)
		}
	}
	first := func(meets func(account) bool) bool {
		i := slices.IndexFunc(accounts, meets)
		if i >= 0 {
			add(accounts[i])
		}
		return i >= 0
	}
	named := func(a account) bool {
		return slices.ContainsFunc(users, func(p string) bool { return p != "*" && wildcard(p, a.name) }) ||
			slices.ContainsFunc(groups, func(p string) bool {
				return p != "*" && slices.ContainsFunc(a.groups, func(g string) bool { return wildcard(p, g) })
			})
	}
	if !first(func(a account) bool { return a.uid >= 1000 && a.uid < 60000 && a.mayLogIn() && !named(a) }) {
		add(account{name: "someone", uid: -1})
	}
	if !first(func(a account) bool { return a.uid == 0 }) {
		add(account{name: "root"})
	}
	for _, p := range users {
		if !first(func(a account) bool { return wildcard(p, a.name) }) {
			add(account{name: strings.NewReplacer("*", "x", "?", "x").Replace(p), uid: -1})
		}
	}
	for _, p := range groups {
		first(func(a account) bool {
			return slices.ContainsFunc(a.groups, func(g string) bool { return wildcard(p, g) })
		})
	}
	return out
}

// settings is what sshd -T prints: keyword, lower case, to its values.
type settings map[string][]string

func (s settings) first(keyword string) string {
	if v := s[keyword]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (s settings) is(keyword, value string) bool { return strings.EqualFold(s.first(keyword), value) }

// effective asks sshd what holds for a connection. sshd is the command, with
// the arguments that it always takes.
func effective(ctx context.Context, sshd []string, c Case) (settings, error) {
	args := append(slices.Clone(sshd[1:]), "-T", "-C", c.String())
	cmd := exec.CommandContext(ctx, sshd[0], args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		said := strings.TrimSpace(complaint.String())
		e := postern.Errorf(postern.Invalid, "%s -T: %s", sshd[0], cmp.Or(said, err.Error()))
		if strings.Contains(said, "privilege separation") {
			return nil, e.WithHint("start sshd once, or make the directory that it misses")
		}
		return nil, e.WithHint("sshd -t names the line; run as root so that sshd can read its host keys")
	}
	s := settings{}
	for line := range strings.Lines(string(out)) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		keyword = strings.ToLower(keyword)
		s[keyword] = append(s[keyword], value)
	}
	return s, nil
}
