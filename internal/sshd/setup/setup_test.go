package setup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/rogpeppe/go-internal/txtar"
)

// setups are the configurations that a host can be given.
var setups = map[string]Setup{
	"key and code":              {Mode: KeyAndCode},
	"key and code, root too":    {Mode: KeyAndCode, Root: true},
	"key or password, and code": {Mode: KeyAndCode, PasswordGroup: "remote"},
	"password and code":         {Mode: PasswordAndCode},
	"groups only":               {Mode: GroupsOnly, Groups: []string{"remote"}},
	"groups only, root too":     {Mode: GroupsOnly, Groups: []string{"remote"}, Root: true},
	"FIDO2 key":                 {Mode: HardwareKey},
	"FIDO2 key and code":        {Mode: HardwareKeyAndCode},
	"FIDO2 key, break-glass":    {Mode: HardwareKey, RescueUser: "fred", RescueFrom: "192.0.2.7"},
	"certificates": {
		Mode:   Certificates,
		UserCA: []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2XvtVXbOIfhW5sbqWsGbZFe4Ky7kxrDWEEGnFMqaOC ca\n"),
	},
	"break-glass": {Mode: KeyAndCode, RescueUser: "fred", RescueFrom: "192.0.2.7"},
	"break-glass, certificates": {
		Mode: Certificates, RescueUser: "fred", RescueFrom: "192.0.2.0/28",
		UserCA: []byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2XvtVXbOIfhW5sbqWsGbZFe4Ky7kxrDWEEGnFMqaOC ca\n"),
	},
}

// TestAuditorIsSilentAboutSetups writes each configuration over Debian's and
// Fedora's stock files and over what an earlier run wrote.
func TestAuditorIsSilentAboutSetups(t *testing.T) {
	for _, stock := range []string{
		"stock-debian", "stock-fedora", "stock-arch", "stock-alpine", "stock-suse",
		"broken-yubico-sufficient",
	} {
		for name, s := range setups {
			if s.Mode == GroupsOnly && !strings.HasPrefix(stock, "stock-") {
				continue // what was wrong for others stays
			}
			t.Run(stock+"/"+name, func(t *testing.T) {
				t.Parallel()
				ar, err := txtar.ParseFile(filepath.Join("../audit/testdata", stock+".txtar"))
				if err != nil {
					t.Fatal(err)
				}
				files := map[string]string{}
				for _, f := range ar.Files {
					files[f.Name] = string(f.Data)
				}
				root := posterntest.SSHDFiles(t, files)
				first := write(t, s, root)
				if again := write(t, s, root); again != first {
					t.Errorf("a second run writes something else:\n%s\nafter\n%s", again, first)
				}
				a := audit.Auditor{Root: root, Clock: func() audit.Clock { return audit.Clock{Synchronized: true} }}
				report, err := a.Audit(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range report.Findings {
					t.Errorf("%s: %s: %s\n\t%s\n\t%s", f.Severity, f.ID, f.Title, f.Where, f.Case)
				}
			})
		}
	}
}

// write puts a setup's files below root and returns what PAM's says.
func write(t *testing.T, s Setup, root string) string {
	t.Helper()
	files, err := s.Files(root)
	if err != nil {
		t.Fatal(err)
	}
	pam := ""
	for _, f := range files {
		path := filepath.Join(root, f.Path)
		content := string(f.Content)
		if f.Path == pamSSHDFile {
			pam = content
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), f.Mode); err != nil {
			t.Fatal(err)
		}
	}
	return pam
}

// TestGroupsOnlyWeakensNobody holds what sshd asks of alice, who is in no group,
// against what it asked of her before.
func TestGroupsOnlyWeakensNobody(t *testing.T) {
	const any = "publickey password keyboard-interactive gssapi-with-mic hostbased"
	for _, c := range []struct{ config, want string }{
		{"UsePAM yes\n", any},
		{"UsePAM yes\nLoginGraceTime 1m30s\n", any},
		{
			"UsePAM yes\nAuthenticationMethods publickey,keyboard-interactive:pam\nLoginGraceTime 30\n",
			"publickey,keyboard-interactive:pam",
		},
		{
			"UsePAM yes\nAuthenticationMethods publickey,password publickey,keyboard-interactive\n",
			"publickey,password publickey,keyboard-interactive",
		},
		{
			"UsePAM yes\nAuthenticationMethods publickey\nMatch all\nAuthenticationMethods publickey,password\n",
			"publickey,password",
		},
		{"UsePAM yes\nMatch User nobody\nAuthenticationMethods publickey\n", any},
		{
			"UsePAM yes\nAuthenticationMethods publickey gssapi-with-mic\nAuthenticationMethods publickey,password\n",
			"publickey gssapi-with-mic",
		},
		{"UsePAM no\nPasswordAuthentication no\n", "publickey password gssapi-with-mic hostbased"},
		{"AuthenticationMethods keyboard-interactive publickey\n", "publickey"},
	} {
		config, want := c.config, c.want
		root := posterntest.SSHDFiles(t,
			map[string]string{
				"etc/ssh/sshd_config":             "Include /etc/ssh/sshd_config.d/*.conf\n" + config,
				"etc/ssh/sshd_config.d/99-x.conf": "",
			})
		write(t, Setup{Mode: GroupsOnly, Groups: []string{"remote"}}, root)
		sshd := append(posterntest.SSHDCommand(t, root), "-f", filepath.Join(root, "etc/ssh/sshd_config"))
		ask := func(user, keyword string) string {
			return posterntest.SSHDSetting(t, sshd, "user="+user+",host=h,addr=203.0.113.1,laddr=203.0.113.2,lport=22",
				keyword)
		}
		if got := ask("alice", "authenticationmethods"); got != want {
			t.Errorf("%q: alice now needs %q, not %q", config, got, want)
		}
		grace := "60"
		if strings.Contains(config, "LoginGraceTime 30") {
			grace = "30"
		}
		if got := ask("alice", "logingracetime"); got != grace {
			t.Errorf("%q: LoginGraceTime %s, not %s", config, got, grace)
		}
		if got := ask("robot", "authenticationmethods"); got != keyThenCode {
			t.Errorf("%q: robot, of the group, needs %q", config, got)
		}
	}
}

func TestSetupsThatMakeNoSense(t *testing.T) {
	root := posterntest.SSHDFiles(t,
		map[string]string{"etc/ssh/sshd_config": "UsePAM yes\nMatch User alice\n\tAuthenticationMethods any\n"})
	if _, err := (Setup{Mode: KeyAndCode}).Files(root); postern.HintOf(err) == "" ||
		!strings.Contains(err.Error(), "/etc/ssh/sshd_config:3: ") {
		t.Errorf("what sshd would not take: %v", err)
	}
	for name, s := range map[string]Setup{
		"no mode":               {},
		"unknown mode":          {Mode: "hope"},
		"groups without groups": {Mode: GroupsOnly},
		"groups with a key":     {Mode: KeyAndCode, Groups: []string{"a"}},
		"a group of two words":  {Mode: GroupsOnly, Groups: []string{"a\nPermitRootLogin yes"}},
		"certificates, no CA":   {Mode: Certificates},
		"rescue from anywhere":  {Mode: KeyAndCode, RescueUser: "fred"},
		"rescue from a name":    {Mode: KeyAndCode, RescueUser: "fred", RescueFrom: "example.com"},
		"rescue by root":        {Mode: KeyAndCode, RescueUser: "root", RescueFrom: "192.0.2.7"},
		"no key, and passwords": {Mode: PasswordAndCode, PasswordGroup: "a"},
	} {
		if s.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func applier(t *testing.T, root string) Applier {
	return Applier{
		Root: root, Dir: t.TempDir(),
		Check:  func(context.Context) error { return nil },
		Test:   func(context.Context) error { return nil },
		Reload: func(context.Context) error { return nil },
	}
}

func tree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			content, rerr := os.ReadFile(path)
			err = rerr
			b.WriteString(path + " " + info.Mode().String() + "\n" + string(content))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestApplyIsUndoneUnlessConfirmed(t *testing.T) {
	posterntest.NeedRoot(t)
	s := Setup{Mode: KeyAndCode}
	for name, c := range map[string]struct {
		change func(*Applier)
		fails  bool
	}{
		"no login confirms": {func(*Applier) {}, false},
		"sshd refuses it": {func(a *Applier) {
			a.Check = func(context.Context) error { return errors.New("line 3") }
		}, true},
		"sshd cannot reload": {func(a *Applier) {
			n := 0
			a.Reload = func(context.Context) error { n++; return map[bool]error{true: errors.New("no pid")}[n == 1] }
		}, true},
		"a file is no file": {func(a *Applier) { os.Mkdir(filepath.Join(a.Root, hostconf.DropIn), 0o755) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			root := posterntest.SSHDFiles(t, map[string]string{
				"etc/ssh/sshd_config":          "Port 22\n",
				"etc/ssh/sshd_config.d/x.conf": "",
			})
			before := tree(t, root)
			a := applier(t, root)
			c.change(&a)
			files, err := s.Files(root)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := a.Apply(t.Context(), files, time.Minute)
			if c.fails != (err != nil) {
				t.Fatalf("apply: %v", err)
			}
			if err == nil {
				if tree(t, root) == before {
					t.Error("nothing was written")
				}
				if _, err := a.Confirm(os.Getpid()); err == nil {
					t.Error("confirmed without an SSH login")
				}
				if a.Confirmed(dir) {
					t.Error("confirmed")
				}
				if err := a.RollBack(t.Context(), dir); err != nil {
					t.Fatal(err)
				}
				if err := a.RollBack(t.Context(), dir); err == nil {
					t.Error("rolled back twice")
				}
			}
			if after := tree(t, root); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestCrashLeavesNothingUnconfirmed(t *testing.T) {
	posterntest.NeedRoot(t)
	for name, c := range map[string]struct {
		until time.Duration
		crash func(t *testing.T, a Applier, dir string)
		back  bool
	}{
		"its time is not over": {time.Hour, func(*testing.T, Applier, string) {}, false},
		"its time is over":     {0, func(*testing.T, Applier, string) {}, true},
		"the host booted anew": {time.Hour, func(t *testing.T, _ Applier, dir string) { anotherBoot(t, dir) }, true},
		"while it was put back": {time.Hour, func(t *testing.T, a Applier, dir string) {
			copies, _ := filepath.Glob(filepath.Join(dir, "1-*"))
			if len(copies) != 1 {
				t.Fatal("no second file")
			}
			if err := os.Rename(copies[0], dir+".away"); err != nil {
				t.Fatal(err)
			}
			if err := a.RollBack(t.Context(), dir); err == nil {
				t.Fatal("put back without the backup")
			}
			if err := os.Rename(dir+".away", copies[0]); err != nil {
				t.Fatal(err)
			}
		}, true},
		"before sshd read it again": {time.Hour, func(t *testing.T, a Applier, dir string) {
			a.Reload = func(context.Context) error { return errors.New("no signal") }
			if err := a.RollBack(t.Context(), dir); err == nil {
				t.Fatal("put back, and sshd never knew")
			}
			if pending, err := a.Pending(); pending != dir {
				t.Errorf("what waits is %q, %v", pending, err)
			}
		}, true},
		"confirmed, and then": {0, func(t *testing.T, _ Applier, dir string) {
			if err := claim(dir, confirmed); err != nil {
				t.Fatal(err)
			}
			anotherBoot(t, dir)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := posterntest.SSHDFiles(t, map[string]string{"etc/one": "1", "etc/two": "2"})
			before := tree(t, root)
			a := applier(t, root)
			files := []File{
				{Path: "/etc/new", Content: []byte("new"), Mode: 0o644},
				{Path: "/etc/one", Content: []byte("new"), Mode: 0o644},
				{Path: "/etc/two", Content: []byte("new"), Mode: 0o644},
			}
			dir, err := a.Apply(t.Context(), files, c.until)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Apply(t.Context(), files, c.until); postern.CodeOf(err) != postern.Conflict {
				t.Errorf("applied over what waits: %v", err)
			}
			c.crash(t, a, dir)
			got, err := a.RollBackOverdue(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if back := tree(t, root) == before; back != c.back || (got == dir) != c.back {
				t.Errorf("put back: %t, from %q:\n%s", back, got, tree(t, root))
			}
			if got, err := a.RollBackOverdue(t.Context()); got != "" || err != nil {
				t.Errorf("put back twice: %s %v", got, err)
			}
		})
	}
}

// anotherBoot has a setup look as if it was applied before the last boot.
func anotherBoot(t *testing.T, dir string) {
	t.Helper()
	m, err := readManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Boot = "another"
	if err := writeManifest(dir, m); err != nil {
		t.Fatal(err)
	}
}
