package audit

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-project/postern/internal/sshd/hostconf"
)

const (
	selinuxConfig = "/etc/selinux/config"
	// selinuxEnforce is there on a kernel that runs with SELinux.
	selinuxEnforce = "/sys/fs/selinux/enforce"
	// selinuxModule is the name of the policy module that comes with Postern.
	selinuxModule = "postern"
)

// judgeSELinux says on a host with SELinux whether sshd may ask the daemon: the
// targeted policy allows it to no confined domain, so that every code is refused.
func (a *audit) judgeSELinux() {
	b, err := a.Read(selinuxConfig)
	uses := usesModule(a.stack, "pam_postern")
	if err != nil || uses == nil {
		return
	}
	mode, at := lastLine(selinuxConfig, string(b), "SELINUX")
	kind, _ := lastLine(selinuxConfig, string(b), "SELINUXTYPE")
	if a.Root == "" { // what is configured need not be what the kernel does
		mode = map[string]string{"1": "enforcing", "0": "permissive"}[runningSELinux()]
	}
	if mode != "enforcing" && mode != "permissive" {
		return
	}
	// Where libsemanage keeps modules, by priority; before 2.4 elsewhere.
	for _, store := range []string{"/var/lib/selinux", "/etc/selinux"} {
		if len(a.Glob(filepath.Join(store, kind, "active/modules/*", selinuxModule))) > 0 {
			return
		}
	}
	f := Finding{
		ID:       "selinux-no-module",
		Severity: Medium,
		Where:    at,
		Title: "SELinux lets no sshd ask the Postern daemon, so that every code is refused: its policy module is " +
			"not installed",
		Proof: "semodule -l | grep -x " + selinuxModule + "; ausearch -m avc -c sshd",
		Fix:   "semodule -i /usr/share/selinux/packages/postern.pp && restorecon -R /run/postern",
	}
	if mode == "permissive" {
		f.Severity, f.Title = Low,
			"once SELinux enforces its policy, every code is refused: Postern's policy module is not installed"
	}
	a.add(f)
}

// runningSELinux returns what the kernel says of this host: "1" if it enforces a
// policy, "0" if it only reports, "" without SELinux (selinuxfs).
func runningSELinux() string {
	b, err := os.ReadFile(selinuxEnforce)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// usesModule returns the first line of a module in a stack, or nil.
func usesModule(stack []hostconf.PAMLine, module string) *hostconf.PAMLine {
	for i := range stack {
		if stack[i].Module == module {
			return &stack[i]
		}
		if l := usesModule(stack[i].Sub, module); l != nil {
			return l
		}
	}
	return nil
}

// lastLine returns the value of a key of lines KEY=VALUE, and where it stands.
func lastLine(file, text, key string) (value string, at hostconf.Line) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			value = strings.ToLower(strings.TrimSpace(v))
			at = hostconf.Line{File: file, Line: number, Text: strings.TrimSpace(line)}
		}
	}
	return value, at
}
