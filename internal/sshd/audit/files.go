package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/system"
)

// judgeFiles finds files that decide who can log in, but that another user than root, or
// than their owner, can change.
func (a *audit) judgeFiles() {
	for _, f := range a.decisiveFiles() {
		a.judgeFile(f, 0)
	}
	for _, d := range a.accesses {
		i := slices.IndexFunc(a.accounts, func(acc account) bool { return acc.name == d.c.User })
		if i < 0 || len(d.paths) == 0 {
			continue
		}
		acc := a.accounts[i]
		for _, pattern := range strings.Fields(strings.Join(d.s["authorizedkeysfile"], " ")) {
			if pattern == "none" {
				continue
			}
			a.judgeFile(acc.keysFile(pattern), acc.UID)
		}
		if d.s.is("strictmodes", "no") {
			a.add(Finding{
				ID:       "strictmodes-off",
				Severity: High,
				Title:    "sshd takes keys from files that others can write",
				Where:    a.setBy(d, "strictmodes"),
				Case:     d.c.String(),
				Proof:    "add a key to a world-writable authorized_keys and log in with it",
				Fix:      "StrictModes yes",
			})
		}
	}
}

// decisiveFiles returns root's files that decide who can log in.
func (a *audit) decisiveFiles() []string {
	var out []string
	add := func(files ...string) {
		for _, f := range files {
			if f != "" && f != "none" && filepath.IsAbs(f) && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	add(a.config, hostconf.ShellConfigFile, hostconf.MappingsFile, a.PAMFile(a.service))
	for _, d := range a.directives {
		add(d.File)
	}
	var walk func(stack []hostconf.PAMLine)
	walk = func(stack []hostconf.PAMLine) {
		for _, l := range stack {
			add(l.File)
			for _, arg := range l.Args {
				for _, name := range []string{"authfile=", "usersfile="} {
					if file, ok := strings.CutPrefix(arg, name); ok {
						add(file)
					}
				}
			}
			walk(l.Sub)
		}
	}
	walk(a.stack)
	for _, d := range a.accesses {
		add(d.s.first("trustedusercakeys"), d.s.first("revokedkeys"), d.s.first("authorizedkeyscommand"),
			d.s.first("authorizedprincipalscommand"))
		if g := a.gate(d); g != nil {
			add(g.path)
		}
	}
	return out
}

// judgeFile checks that only root and the user uid can change a file and its directory.
func (a *audit) judgeFile(file string, uid int) {
	for _, name := range []string{file, filepath.Dir(file)} {
		st, err := a.Stat(name)
		if err != nil {
			continue
		}
		owner, _, ok := system.Owner(st)
		if !ok {
			continue
		}
		loose := st.Mode().Perm()&0o022 != 0 && st.Mode()&os.ModeSticky == 0
		if !loose && (owner == 0 || owner == uid) {
			continue
		}
		fix := fmt.Sprintf("chmod go-w %s", name)
		if owner != 0 && owner != uid {
			fix = fmt.Sprintf("chown root: %s && chmod go-w %s", name, name)
		}
		a.add(Finding{
			ID:       "writable-file",
			Severity: Critical,
			Title:    fmt.Sprintf("%s decides who may log in, and others than its owner can change it", file),
			Where:    hostconf.Line{File: name, Text: fmt.Sprintf("%v, owned by user %d", st.Mode().Perm(), owner)},
			Proof:    "ls -ld " + name,
			Fix:      fix,
		})
	}
}
