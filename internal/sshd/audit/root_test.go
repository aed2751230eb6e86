package audit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/sys/unix"
)

const (
	twoFactors = "UsePAM yes\nPermitRootLogin no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\n" +
		"AuthenticationMethods publickey,keyboard-interactive:pam\n"
	keyForRobots = "Match User robot\n\tAuthenticationMethods publickey\n"
	asksCode     = "auth required pam_postern.so\n"
)

// auditRoot returns what is found below a root, as ID and where.
func auditRoot(t *testing.T, root string) []string {
	t.Helper()
	report, err := Auditor{Root: root, Clock: func() Clock { return Clock{Synchronized: true} }}.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range report.Findings {
		got = append(got, f.ID+" "+f.Where.File)
	}
	slices.Sort(got)
	return got
}

// link makes a symbolic link below a root.
func link(t *testing.T, root, name, target string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, file); err != nil {
		t.Fatal(err)
	}
}

// onlyOutside is a directory of this host that no audited root has, whose files
// would change every verdict.
func onlyOutside(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"weak.conf": keyForRobots, "pam": "auth sufficient pam_permit.so\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestNamesAreResolvedBelowTheRoot holds absolute names and symbolic links, judged by
// the sshd of the root and by this host's.
func TestNamesAreResolvedBelowTheRoot(t *testing.T) {
	outside := onlyOutside(t)
	tests := map[string]struct {
		files map[string]string
		links map[string]string
		want  string
	}{
		"an absolute Include": {
			map[string]string{
				"etc/ssh/sshd_config":  twoFactors + "Include /etc/more/*.conf\n",
				"etc/more/robots.conf": keyForRobots,
			},
			nil,
			"one-factor /etc/more/robots.conf",
		},
		"an Include of this host's": {
			map[string]string{"etc/ssh/sshd_config": twoFactors + "Include " + outside + "/*.conf\n"}, nil, "",
		},
		"a link to another file": {
			map[string]string{
				"etc/ssh/sshd_config": twoFactors + "Include /etc/ssh/sshd_config.d/*.conf\n",
				"srv/robots":          keyForRobots,
			},
			map[string]string{"etc/ssh/sshd_config.d/10.conf": "/srv/robots"},
			"one-factor /etc/ssh/sshd_config.d/10.conf",
		},
		"a link that climbs": {
			map[string]string{
				"etc/ssh/sshd_config": twoFactors + "Include sshd_config.d/*.conf\n",
				"srv/robots":          keyForRobots,
			},
			map[string]string{"etc/ssh/sshd_config.d": "../../../../../../../../../../../srv", "srv/x.conf": "robots"},
			"one-factor /etc/ssh/sshd_config.d/x.conf",
		},
		"PAM's file is a link": {
			map[string]string{
				"etc/ssh/sshd_config": twoFactors,
				"usr/share/pam/ssh":   "auth sufficient pam_permit.so\n" + asksCode,
			},
			map[string]string{"etc/pam.d/sshd": "/usr/share/pam/ssh"},
			"pam-sufficient /etc/pam.d/sshd",
		},
		"PAM includes an absolute file": {
			map[string]string{
				"etc/ssh/sshd_config": twoFactors,
				"etc/pam.d/sshd":      "auth include /etc/site/pam\n",
				"etc/site/pam":        "auth sufficient pam_permit.so\n" + asksCode,
			},
			nil,
			"pam-sufficient /etc/site/pam",
		},
		"PAM includes a file of this host's": {
			map[string]string{
				"etc/ssh/sshd_config": twoFactors,
				"etc/pam.d/sshd":      asksCode + "auth include " + outside + "/pam\n",
			},
			nil,
			"",
		},
		"the main file is a link": {
			map[string]string{"usr/etc/ssh/sshd_config": twoFactors + keyForRobots},
			map[string]string{"etc/ssh/sshd_config": "/usr/etc/ssh/sshd_config"},
			"one-factor /etc/ssh/sshd_config",
		},
	}
	for name, test := range tests {
		for _, image := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", sshd's root", false: ""}[image], func(t *testing.T) {
				posterntest.NeedRoot(t)
				files := map[string]string{"etc/pam.d/sshd": asksCode}
				for name, content := range test.files {
					files[name] = content
				}
				root := posterntest.SSHDFiles(t, files)
				for name, target := range test.links {
					_ = os.Remove(filepath.Join(root, name))
					link(t, root, name, target)
				}
				if image {
					posterntest.SSHDImage(t, root)
				}
				if got := strings.Join(auditRoot(t, root), ", "); got != test.want {
					t.Errorf("found %q, want %q", got, test.want)
				}
			})
		}
	}
}

// TestSSHDOfAnotherMachineIsNotAsked holds a root whose sshd cannot run here.
func TestSSHDOfAnotherMachineIsNotAsked(t *testing.T) {
	posterntest.NeedRoot(t)
	for name, program := range map[string]string{
		"another processor": "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\xb7\x00\x01\x00\x00\x00",
		"no libraries":      "#!/usr/bin/missing\n", "empty": "",
	} {
		root := posterntest.SSHDFiles(t, map[string]string{
			"etc/ssh/sshd_config": twoFactors + keyForRobots,
			"etc/pam.d/sshd":      asksCode, "usr/sbin/sshd": program,
		})
		if err := os.Chmod(filepath.Join(root, "usr/sbin/sshd"), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := auditRoot(t, root); !slices.Equal(got, []string{"one-factor /etc/ssh/sshd_config"}) {
			t.Errorf("%s: found %q", name, got)
		}
	}
}

// TestImageInWhichSSHDNeverRan has neither sshd's directory nor its account nor a
// host key.
func TestImageInWhichSSHDNeverRan(t *testing.T) {
	root := posterntest.SSHDFiles(t, map[string]string{
		"etc/ssh/sshd_config": twoFactors + keyForRobots,
		"etc/pam.d/sshd":      asksCode,
		"etc/passwd": "root:x:0:0::/root:/bin/bash\nrobot:x:1002:1002::/home/robot:/bin/sh\n" +
			"alice:x:1000:1000::/home/alice:/bin/bash\n",
	})
	posterntest.SSHDImage(t, root)
	if got := auditRoot(t, root); !slices.Equal(got, []string{"one-factor /etc/ssh/sshd_config"}) {
		t.Errorf("found %q", got)
	}
	if entries, _ := os.ReadDir(root); slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.Name() == "run" || e.Name() == "dev"
	}) {
		t.Errorf("the audit left files: %v", entries)
	}
}

// TestAccountsOfADirectory has accounts and groups that no file of /etc lists, known
// by an NSS module.
func TestAccountsOfADirectory(t *testing.T) {
	tests := map[string]struct{ config, pam, want string }{
		"a group's block": {
			twoFactors + "Match Group contractors\n\tAuthenticationMethods publickey\n",
			asksCode,
			"one-factor /etc/ssh/sshd_config",
		},
		"a primary group's": {
			twoFactors + "Match Group people\n\tAuthenticationMethods publickey\n",
			asksCode,
			"one-factor /etc/ssh/sshd_config",
		},
		"an account's": {
			twoFactors + "Match User carol\n\tAuthenticationMethods publickey\n",
			asksCode,
			"one-factor /etc/ssh/sshd_config",
		},
		"a group that is denied": {
			twoFactors + "DenyGroups contractors\nMatch User carol\n\tAuthenticationMethods publickey\n",
			asksCode,
			"",
		},
		"PAM's condition": {
			twoFactors,
			"auth [success=1 default=ignore] pam_succeed_if.so user ingroup contractors\n" + asksCode +
				"auth required pam_permit.so\n",
			"pam-exempt /etc/pam.d/sshd",
		},
		"PAM's local accounts": {
			twoFactors,
			"auth [success=ignore default=1] pam_localuser.so\n" + asksCode + "auth required pam_permit.so\n",
			"pam-exempt /etc/pam.d/sshd",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			posterntest.NeedRoot(t)
			root := posterntest.SSHDFiles(t, map[string]string{
				"etc/ssh/sshd_config": test.config, "etc/pam.d/sshd": test.pam,
				"etc/nsswitch.conf":         "passwd: files extrausers\ngroup: files extrausers\n",
				"var/lib/extrausers/passwd": "carol:x:5000:5000::/home/carol:/bin/bash\n",
				"var/lib/extrausers/group":  "people:x:5000:\ncontractors:x:5001:carol\n",
				"var/lib/extrausers/shadow": "",
			})
			posterntest.SSHDImage(t, root, "extrausers")
			if got := strings.Join(auditRoot(t, root), ", "); got != test.want {
				t.Errorf("found %q, want %q", got, test.want)
			}
		})
	}
}

// TestNSSDoesNotAnswer has an NSS module that waits for ever, as one whose service hangs.
func TestNSSDoesNotAnswer(t *testing.T) {
	posterntest.NeedRoot(t)
	root := posterntest.SSHDFiles(t, map[string]string{
		"etc/ssh/sshd_config": twoFactors + "Match User carol\n\tAuthenticationMethods publickey\n",
		"etc/pam.d/sshd":      asksCode,
		"etc/nsswitch.conf":   "group: files\npasswd: files extrausers\n",
	})
	posterntest.SSHDImage(t, root, "extrausers")
	link(t, root, "var/lib/extrausers/group", "/dev/null")
	if err := unix.Mkfifo(filepath.Join(root, "var/lib/extrausers/passwd"), 0o644); err != nil {
		t.Fatal(err)
	}
	a := Auditor{Root: root, Clock: func() Clock { return Clock{Synchronized: true} }, patience: 2 * time.Second}
	report, err := a.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.ID == "accounts-unknown" })
	if i < 0 || report.Findings[i].Where.String() != "/etc/nsswitch.conf:2: passwd: files extrausers" ||
		!strings.Contains(report.Findings[i].Proof, "getent passwd: it does not answer") {
		t.Errorf("found %+v", report.Findings)
	}
	if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.ID == "one-factor" }) {
		t.Errorf("the rule for an account that is not known is not judged: %+v", report.Findings)
	}
}
