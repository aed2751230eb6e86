package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestMain lets this test be the programs that are packed: completion is all that
// build.sh asks of them.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "completion" {
		fmt.Println("# completion for " + os.Args[2])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// build builds the packages for this architecture in a copy of the tree, of programs that
// are there already, and returns the directory that holds them.
func build(t *testing.T, version string) string {
	t.Helper()
	tree, programs := filepath.Join(t.TempDir(), version), t.TempDir()
	output(t, "git", "-C", "..", "checkout-index", "-a", "--prefix="+tree+"/")
	arch := strings.TrimSpace(output(t, "go", "env", "GOHOSTARCH"))
	if err := os.Mkdir(filepath.Join(programs, arch), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postern", "postern-noserver"} {
		if err := os.WriteFile(filepath.Join(programs, arch, name), self, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(tree, "packaging/build.sh"), arch)
	cmd.Env = append(os.Environ(), "PROGRAMS="+programs, "VERSION="+version, "COMMIT=0123456789abcdef",
		"SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	return filepath.Join(tree, "bin/packages")
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// one returns the one file in a directory that a pattern matches.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	return files[0]
}

// TestPackages builds the packages in two directories, looks what is in them, and installs,
// upgrades, removes and purges the server's below a root of its own.
func TestPackages(t *testing.T) {
	for _, program := range []string{"dpkg-deb", "rpm", "git", "gcc"} {
		posterntest.Need(t, program)
	}
	posterntest.NeedRoot(t)
	first := build(t, "1.0")
	t.Run("reproducible", func(t *testing.T) {
		sums := func(dir string) string {
			text, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		again := build(t, "1.0")
		if a, b := sums(first), sums(again); a != b || strings.Count(a, "\n") != 8 {
			t.Errorf("two builds differ:\n%s\n%s", a, b)
		}
	})
	t.Run("contents", func(t *testing.T) { contents(t, first) })
	t.Run("life", func(t *testing.T) {
		file := one(t, first, "postern_*.deb")
		life(t, file, newer(t, file))
	})
}

// listed is what dpkg-deb -c prints before a file's name.
var listed = regexp.MustCompile(`(?m)^\S+ +\S+ +\S+ \S+ \S+ \./`)

// contents looks at what the packages hold.
func contents(t *testing.T, dir string) {
	var units []string
	for _, kind := range []string{"service", "socket", "timer"} {
		files, err := filepath.Glob("*." + kind)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", kind, files, err)
		}
		for _, file := range files {
			units = append(units, "usr/lib/systemd/system/"+file)
		}
	}
	server, agent := "usr/lib/systemd/system/postern.service", "usr/share/man/man1/postern-trace-rpc.1.gz"
	for _, c := range []struct {
		pattern    string
		has, lacks []string
	}{
		{"postern_*.deb", append(units,
			"usr/bin/postern", "etc/postern/Caddyfile", agent, "usr/share/man/man1/postern-user-add.1.gz",
			"usr/share/bash-completion/completions/postern", "usr/share/doc/postern/sbom.cdx.json",
			"usr/share/doc/postern/LICENSES.gz", "usr/lib/sysusers.d/postern.conf",
			"usr/lib/sysusers.d/postern-agent.conf",
		), []string{"usr/share/man/man8/pam_postern.8.gz"}},
		{"postern-agent_*.deb", []string{
			"usr/bin/postern", agent, "usr/lib/systemd/system/postern-agent.service",
			"usr/share/man/man1/postern-join.1.gz", "usr/lib/sysusers.d/postern-agent.conf",
		}, []string{server, "etc/postern/Caddyfile", "usr/share/man/man1/postern-user-add.1.gz"}},
		{"libpam-postern_*.deb", []string{"usr/share/man/man8/pam_postern.8.gz"}, []string{"usr/bin/postern"}},
		{"postern-1.0*.rpm", []string{"usr/bin/postern", "etc/postern/Caddyfile", server}, nil},
		{"postern-agent-1.0*.rpm", []string{"usr/bin/postern"}, []string{server}},
		{"libpam-postern-1.0*.rpm", []string{"usr/lib64/security/pam_postern.so"}, nil},
	} {
		file, list := one(t, dir, c.pattern), ""
		if strings.HasSuffix(file, ".deb") {
			list = listed.ReplaceAllString(output(t, "dpkg-deb", "-c", file), "")
		} else {
			list = strings.ReplaceAll("\n"+output(t, "rpm", "-qpl", file), "\n/", "\n")
		}
		files := strings.Split(list, "\n")
		for _, f := range c.has {
			if !slices.Contains(files, f) {
				t.Errorf("%s lacks %s", c.pattern, f)
			}
		}
		for _, f := range c.lacks {
			if slices.Contains(files, f) {
				t.Errorf("%s has %s", c.pattern, f)
			}
		}
	}
	got := output(t, "rpm", "-qp", "--configfiles", one(t, dir, "postern-1.0*.rpm"))
	if got != "/etc/postern/Caddyfile\n" {
		t.Errorf("the .rpm keeps changes of %s", got)
	}
}

// newer packs a .deb again as version 2.0, with another default configuration.
func newer(t *testing.T, file string) string {
	tree := filepath.Join(t.TempDir(), "tree")
	output(t, "dpkg-deb", "-R", file, tree)
	for name, change := range map[string]func(string) string{
		"DEBIAN/control":        func(s string) string { return strings.Replace(s, "Version: 1.0", "Version: 2.0", 1) },
		"etc/postern/Caddyfile": func(s string) string { return s + "# new\n" },
	} {
		text, err := os.ReadFile(filepath.Join(tree, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(change(string(text))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	output(t, "dpkg-deb", "-b", "-Znone", tree, tree+".deb")
	return tree + ".deb"
}

// life installs a package below a root, upgrades it, removes and purges it.
func life(t *testing.T, first, second string) {
	root := t.TempDir()
	for _, d := range []string{"etc", "var/lib/dpkg/info", "var/lib/dpkg/updates"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"var/lib/dpkg/status": "", "etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dpkg := func(args ...string) string {
		force := []string{"--root=" + root, "--force-script-chrootless", "--force-confold"}
		return output(t, "dpkg", append(force, args...)...)
	}
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return err == nil
	}
	dpkg("-i", first)
	dpkg("-i", first) // again changes nothing
	passwd, _ := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if !strings.Contains(string(passwd), "\npostern:") || !strings.Contains(string(passwd), "\npostern-agent:") ||
		!there("var/lib/postern") {
		t.Errorf("no user or no state:\n%s", passwd)
	}
	config, state := filepath.Join(root, "etc/postern/Caddyfile"), filepath.Join(root, "var/lib/postern/database")
	for _, file := range []string{config, state} {
		if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dpkg("-i", second)
	for _, file := range []string{config, state} {
		if text, err := os.ReadFile(file); err != nil || string(text) != "mine\n" {
			t.Errorf("after the upgrade %s is %q, %v", file, text, err)
		}
	}
	if said := dpkg("-r", "postern"); !strings.Contains(said, "the state stays") ||
		!there("var/lib/postern/database") || there("usr/bin/postern") {
		t.Errorf("removing said %s", said)
	}
	if said := dpkg("-P", "postern"); !strings.Contains(said, "removed /var/lib/postern") ||
		there("var/lib/postern") || there("etc/postern/Caddyfile") || !there("var/backups/postern") {
		t.Errorf("purging said %s", said)
	}
}

// TestUnitsAreConfined holds what systemd says of how much the services may do: 0 is
// nothing, 10 everything.
func TestUnitsAreConfined(t *testing.T) {
	posterntest.Need(t, "systemd-analyze")
	for unit, threshold := range map[string]string{
		"postern.service": "20", "postern-backup.service": "20", "postern-agent.service": "40",
		"postern-log-export@.service": "20",
	} {
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold="+threshold,
			"./"+unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}
