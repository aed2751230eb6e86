package audit

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// account is a line of passwd(5), wherever NSS has it from.
type account struct {
	name, home, shell string
	UID               int // -1: no account of the host, but of a kind that its rules name
	groups            []string
	local             bool // it stands in passwd(5)
	keys              *keys
	certificates      *keys // what those of the host's own CA open that name it; nil if that is not known
}

// mayLogIn reports whether the account's shell permits logins.
func (a account) mayLogIn() bool {
	return a.shell == "" ||
		!slices.Contains([]string{"nologin", "false", "sync", "halt", "shutdown"},
			a.shell[strings.LastIndexByte(a.shell, '/')+1:])
}

// rank is 1 for system accounts, whose numbers are below 1000 (login.defs(5)), and 0
// for all others.
func (a account) rank() int {
	if a.UID >= 0 && a.UID < 1000 {
		return 1
	}
	return 0
}

// membersMax bounds how many members of a group are looked up one by one.
const membersMax = 20

// accounts is what NSS knows of accounts. A directory rarely lists all that it has,
// so those that the host's rules name are looked up by name.
type accounts struct {
	host     *host
	list     []account
	groups   map[string]string   // name by number
	members  map[string][]string // the groups that a user is listed in
	listed   map[string][]string // the users that a group lists
	complete map[string]bool     // names of accounts in list
	local    []string            // names in passwd(5)
}

// accountsOf returns the host's accounts, and those of a directory that the names of
// users and groups lead to.
func accountsOf(ctx context.Context, h *host, users, groups []string) []account {
	a := &accounts{
		host:     h,
		groups:   map[string]string{},
		members:  map[string][]string{},
		listed:   map[string][]string{},
		complete: map[string]bool{},
	}
	passwd, _ := h.Read("/etc/passwd")
	a.local = firstFields(string(passwd))
	for line := range strings.Lines(a.database(ctx, "group", "/etc/group")) {
		a.group(line)
	}
	for line := range strings.Lines(a.database(ctx, "passwd", "/etc/passwd")) {
		a.account(line, nil)
	}
	if !h.asks {
		return a.list
	}
	for _, name := range groups {
		if _, known := a.listed[name]; !known {
			a.group(a.lookup(ctx, "group", name))
		}
		users = append(users, a.listed[name][:min(len(a.listed[name]), membersMax)]...)
	}
	for _, name := range users {
		if !a.complete[name] {
			a.account(a.lookup(ctx, "passwd", name), a.groupsOf(ctx, name))
		}
	}
	return a.list
}

// database returns all entries of a database, at least those of the file.
func (a *accounts) database(ctx context.Context, name, file string) string {
	if out, ok := a.host.askNSS(ctx, getent, name); ok {
		return out
	}
	b, _ := a.host.Read(file)
	return string(b)
}

// Programs that ask NSS.
const (
	getent = "/usr/bin/getent"
	id     = "/usr/bin/id"
)

// lookup returns the entry of a name or number, "" if there is none.
func (a *accounts) lookup(ctx context.Context, database, name string) string {
	if name == "" || name[0] == '-' {
		return ""
	}
	out, ok := a.host.askNSS(ctx, getent, database, name)
	if !ok {
		return ""
	}
	return out
}

// groupsOf returns the names of all groups of an account, which its groups do not
// always list: sshd asks for them alike (getgrouplist(3)).
func (a *accounts) groupsOf(ctx context.Context, name string) []string {
	if name == "" || name[0] == '-' {
		return nil
	}
	out, ok := a.host.askNSS(ctx, id, "-G", name)
	if !ok {
		return nil
	}
	var names []string
	for _, number := range strings.Fields(out) {
		if _, known := a.groups[number]; !known {
			a.group(a.lookup(ctx, "group", number))
		}
		if group := a.groups[number]; group != "" {
			names = append(names, group)
		}
	}
	return names
}

// group takes a line of group(5).
func (a *accounts) group(line string) {
	f := strings.Split(strings.TrimSpace(line), ":")
	if len(f) < 4 {
		return
	}
	a.groups[f[2]] = f[0]
	a.listed[f[0]] = nil
	for _, user := range strings.Split(f[3], ",") {
		if user != "" {
			a.members[user] = append(a.members[user], f[0])
			a.listed[f[0]] = append(a.listed[f[0]], user)
		}
	}
}

// account takes a line of passwd(5), and groups beyond those that list the account.
func (a *accounts) account(line string, groups []string) {
	f := strings.Split(strings.TrimSpace(line), ":")
	if len(f) < 7 {
		return
	}
	uid, err := strconv.Atoi(f[2])
	if err != nil || a.complete[f[0]] {
		return
	}
	groups = append(slices.Clone(a.members[f[0]]), groups...)
	if primary := a.groups[f[3]]; primary != "" {
		groups = append(groups, primary)
	}
	a.complete[f[0]] = true
	a.list = append(a.list, account{
		name: f[0], UID: uid, home: f[5], shell: f[6], groups: groups, local: slices.Contains(a.local, f[0]),
	})
}

// judgeAccounts tells that NSS did not answer.
func (a *audit) judgeAccounts() {
	if a.unanswered == "" {
		return
	}
	a.add(Finding{
		ID: "accounts-unknown", Severity: Medium,
		Title: "accounts and groups of /etc/passwd and /etc/group alone were judged, since NSS does not answer",
		Where: a.nssLine(), Proof: a.unanswered,
		Fix: "start the service that is named there (sssd, nslcd, winbind), and audit again",
	})
}

// nssLine returns the line of nsswitch.conf(5) that says whom NSS asks for accounts.
func (a *audit) nssLine() hostconf.Line {
	const file = "/etc/nsswitch.conf"
	b, _ := a.Read(file)
	for i, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "passwd:") {
			return hostconf.Line{File: file, Line: i + 1, Text: strings.TrimSpace(line)}
		}
	}
	return hostconf.Line{File: file, Text: "(not set) passwd"}
}

// names returns the users and groups that the rules of sshd and PAM name in full.
func (p patterns) names(attribute string) []string {
	return slices.DeleteFunc(slices.Clone(p[attribute]), func(s string) bool { return strings.ContainsAny(s, "*?") })
}

// addPAM adds the users and groups that a stack's conditions name.
func (p patterns) addPAM(stack []hostconf.PAMLine) {
	for _, l := range stack {
		p.addPAM(l.Sub)
		for _, patterns := range l.Own.Groups {
			p.add("group", patterns...)
		}
		if l.Module != "pam_succeed_if" {
			continue
		}
		for i := 0; i+2 < len(l.Args); i++ {
			switch l.Args[i] + " " + l.Args[i+1] {
			case "user ingroup", "user notingroup":
				p.add("group", strings.Split(l.Args[i+2], ":")...)
			case "user =", "user eq", "user in", "user !=", "user ne", "user notin":
				p.add("user", strings.Split(l.Args[i+2], ":")...)
			}
		}
	}
}

// firstFields returns what is before the first colon of each line.
func firstFields(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			out = append(out, name)
		}
	}
	return out
}
