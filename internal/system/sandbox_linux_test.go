package system

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/sys/unix"
)

// tree makes a root with these files; a content that begins with "-> " is a symbolic
// link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		file := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if target, ok := strings.CutPrefix(content, "-> "); ok && err == nil {
			err = os.Symlink(target, file)
		} else if err == nil {
			err = os.WriteFile(file, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLinksStayBelowTheRoot(t *testing.T) {
	root := tree(t, map[string]string{
		"etc/passwd": "ours",
		"absolute":   "-> /etc/passwd",
		"up":         "-> ../../../../../../../../etc/passwd",
		"loop":       "-> loop",
		"etc/dir":    "-> /",
		"missing":    "-> /etc/hostname",
		"fd":         "-> /proc/self/root/etc/passwd",
	})
	for name, want := range map[string]string{
		"/etc/passwd": "ours", "absolute": "ours", "up": "ours", "etc/dir/etc/passwd": "ours",
		"../../../etc/passwd": "ours",
		"loop":                "", "missing": "", "fd": "", "/etc/hostname": "",
	} {
		f, err := OpenInRoot(root, name)
		if want == "" {
			if err == nil {
				t.Errorf("%s is opened", name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b := make([]byte, 100)
		if n, _ := f.Read(b); string(b[:n]) != want {
			t.Errorf("%s is %q", name, b[:n])
		}
		f.Close()
	}
}

// busybox is a root whose one program is a shell.
func busybox(t *testing.T, files map[string]string) string {
	t.Helper()
	posterntest.NeedRoot(t)
	root := tree(t, files)
	sh := posterntest.Need(t, "bash")
	libraries, err := exec.Command("ldd", sh).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(strings.Fields(string(libraries)), sh) {
		if !filepath.IsAbs(file) {
			continue
		}
		b, err := os.ReadFile(file)
		to := filepath.Join(root, file)
		if file == sh {
			to = filepath.Join(root, "bin/sh")
		}
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSandboxedProgramsReachNothing(t *testing.T) {
	root := busybox(
		t,
		map[string]string{"etc/passwd": "ours", "run/old/file": "old", "dev/x": "", "bin/link": "-> /proc/1/root"},
	)
	before := listing(t, root)
	s, err := NewSandbox(root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(
		s.MakeDir("/run/sshd"),
		s.Write("/etc/passwd", []byte("covered")),
		s.Write("/run/new/key", []byte("key")),
	); err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]string{
		"read x </etc/passwd; echo $x":                     "covered",
		"read x </run/old/file; echo $x":                   "old",
		"read x </run/new/key; echo $x":                    "key",
		"cd /run/sshd && echo in":                          "in",
		"echo >/etc/new || echo refused":                   "refused",
		"echo $$":                                          "1",
		"cd /proc/1 2>/dev/null || echo none":              "none",
		"echo >/dev/null && echo null":                     "null",
		"set -- /dev/*; echo $*":                           "/dev/null",
		"(exec 3<>/dev/tcp/127.0.0.1/22) || echo no route": "no route",
		"cd ../../../../..; read x <etc/passwd; echo $x":   "covered",
		"read x </bin/link/etc/passwd || echo no way out":  "no way out",
	} {
		out, complaint, _ := s.Output(t.Context(), "/bin/sh", "-c", script)
		if strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %q, want %q (%s)", script, out, want, complaint)
		}
	}
	if _, _, err := s.Output(
		t.Context(),
		"/bin/sh",
		"-c",
		"while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
	); err == nil {
		t.Error("a program that prints for ever ends well")
	}
	if after := listing(t, root); after != before {
		t.Errorf("outside there is now\n%s\nbefore:\n%s", after, before)
	}
}

// TestSandboxLeavesTheHostAlone adds files to the host's own root.
func TestSandboxLeavesTheHostAlone(t *testing.T) {
	posterntest.NeedRoot(t)
	s, err := NewSandbox("/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(
		s.MakeDir("/run/postern-sandbox-test/deep"),
		s.Write("/etc/group", []byte("ours")),
	); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ours", "CapEff:\t0000000000000000"} {
		out, complaint, err := s.Output(t.Context(), "/bin/cat", "/etc/group", "/proc/self/status")
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %s%s", err, out, complaint)
		}
	}
	if _, err := os.Stat("/run/postern-sandbox-test"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("outside: %v", err)
	}
}

func TestSandboxWithoutARoot(t *testing.T) {
	if s, err := NewSandbox(filepath.Join(t.TempDir(), "missing")); err == nil {
		s.Close()
		t.Error("a sandbox below nothing")
	}
}

func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(root, func(file string, st os.FileInfo, err error) error {
		if err == nil {
			b.WriteString(file + " " + st.Mode().String() + " " + st.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
