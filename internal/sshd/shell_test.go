package sshd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"golang.org/x/crypto/ssh"
)

// gateHost is a host whose sshd asks by ForceCommand, with the write-up's files
// and every channel beside it shut.
func gateHost(t *testing.T) (*posterntest.Host, *servertest.SSH) {
	t.Helper()
	posterntest.NeedRoot(t)
	return writeUpHost(t, "pam_deny.so", map[string]string{
		"/etc/yubikey_shell": "# Configuration for /sbin/yubikey_shell\nYUBICO_API_ID=\"4711\"\n#DEBUG=1\n" +
			"#TRUSTED_KEYS_FILE=/etc/yubikey_mappings\n",
		"/etc/ssh/sshd_config": gateConfig(
			"ForceCommand @DIR@/postern ssh shell --timeout 20s\nDisableForwarding yes\nMaxSessions 1\n" +
				"PermitUserRC no\n",
		),
	})
}

func TestShellTypesTheCode(t *testing.T) {
	t.Parallel()
	h, rig := gateHost(t)
	session := func(t *testing.T, user string, setup func(*ssh.Session)) (*ssh.Session, io.WriteCloser, io.Reader) {
		t.Helper()
		c, err := h.Connect(user, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if setup != nil {
			setup(s)
		}
		in, _ := s.StdinPipe()
		out, _ := s.StdoutPipe()
		return s, in, out
	}
	terminal := func(s *ssh.Session) {
		if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 1}); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("on a terminal, for a login shell", func(t *testing.T) {
		s, in, out := session(t, "fred", terminal)
		if err := s.Shell(); err != nil {
			t.Fatal(err)
		}
		expectAll(t, out, "Please provide Yubi OTP: ")
		io.WriteString(in, rig.Touch(t, "fred")+"\n")
		before := expectAll(t, out, "$ ")
		io.WriteString(in, "shopt -q login_shell && echo is lo''gin; echo code is $LC_POSTERN_OTP.; exit 7\n")
		said := before + expectAll(t, out, "is login", "code is .")
		if strings.Contains(said, rig.Tokens["fred"].PublicID) {
			t.Errorf("the code is echoed: %q", said)
		}
		if err := s.Wait(); err == nil || !strings.Contains(err.Error(), "status 7") {
			t.Errorf("ends with %v", err)
		}
	})
	t.Run("in a pipe, before the command's own input", func(t *testing.T) {
		s, in, out := session(t, "fred", nil)
		if err := s.Start("read -r x; echo got \"$x\", ran $0; cat"); err != nil {
			t.Fatal(err)
		}
		io.WriteString(in, rig.Touch(t, "fred")+"\nfirst\nrest\n")
		in.Close()
		all, err := io.ReadAll(out)
		if err != nil || string(all) != "got first, ran bash\nrest\n" {
			t.Errorf("%q, %v", all, err)
		}
	})
	for name, typed := range map[string]string{
		"a wrong code": strings.Repeat("c", 44) + "\n", "nothing": "\n", "the end": "\x04", "an interrupt": "\x03",
		"a stop":         "\x1a",
		"another's code": "", "far too much": strings.Repeat("c", 2000) + "\n",
	} {
		t.Run(name+" ends the connection", func(t *testing.T) {
			user := "fred"
			if typed == "" {
				user, typed = "bob", rig.Touch(t, "jimbob")+"\n"
			}
			s, in, out := session(t, user, terminal)
			if err := s.Shell(); err != nil {
				t.Fatal(err)
			}
			if user == "fred" {
				expectAll(t, out, "Please provide Yubi OTP: ")
			}
			io.WriteString(in, typed)
			io.WriteString(in, "echo op''en\n")
			all, _ := io.ReadAll(out)
			if strings.Contains(string(all), "open") {
				t.Errorf("it opened: %q", all)
			}
			if err := s.Wait(); err == nil {
				t.Error("ends well")
			}
		})
	}
	t.Run("a terminal that closes leaves nothing behind", func(t *testing.T) {
		s, _, out := session(t, "fred", terminal)
		if err := s.Shell(); err != nil {
			t.Fatal(err)
		}
		expectAll(t, out, "Please provide Yubi OTP: ")
		s.Close()
		deadline := time.Now().Add(2 * time.Minute)
		for {
			left, err := h.Command("pgrep", "-u", "fred", "-a").Output()
			if err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("left behind:\n%s", left)
			}
			posterntest.Pause(t)
		}
	})
}

// TestShellAsksTheRightSSHD has a second sshd beside the first, with another
// configuration, that leaves everything open.
func TestShellAsksTheRightSSHD(t *testing.T) {
	t.Parallel()
	h, rig := gateHost(t)
	strict := posterntest.Read(t, h.Inside("/etc/ssh/sshd_config"))
	for name, content := range map[string]string{
		"open":   strings.ReplaceAll(strict, "DisableForwarding yes\n", ""),
		"strict": strict,
	} {
		if err := os.WriteFile(h.Inside("/etc/ssh/"+name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.Inside("/etc/yubikey_shell"), []byte("YUBICO_API_ID=4711\nDEBUG=1\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	run := func(port string) string {
		out, _ := h.Command("ssh", "-F", "none", "-i", h.KeyFile, "-o", "BatchMode=yes", "-o",
			"StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "SetEnv=LC_POSTERN_OTP="+rig.Touch(t, "fred"), "-p", port, "fred@127.0.0.1", "echo is i''n").
			CombinedOutput()
		return string(out)
	}
	for _, c := range []struct {
		port string
		args []string
		want string
	}{
		{"2201", []string{"-f", "/etc/ssh/strict"}, "is in\n"},
		{"2202", []string{"-f", "/etc/ssh/open"}, "sshd leaves open what no code guards: gate-tcp-forwarding"},
		{
			"2203",
			[]string{"-f", "/etc/ssh/strict", "-oPermitTunnel=yes"},
			"sshd leaves open what no code guards: gate-tunnel",
		},
		{"2204", []string{"-f", "/etc/ssh/strict", "-o", "PermitTunnel no"}, "cannot be found out"},
	} {
		t.Run(fmt.Sprintf("sshd %q", c.args), func(t *testing.T) {
			sshd := h.Command("/usr/sbin/sshd", append(c.args, "-h", filepath.Join(h.Dir, "host"), "-p", c.port)...)
			if out, err := sshd.CombinedOutput(); err != nil { // it goes into the background
				t.Fatalf("%v: %s", err, out)
			}
			out := run(c.port)
			for out == "" || strings.Contains(out, "Connection refused") {
				posterntest.Pause(t)
				out = run(c.port)
			}
			if !strings.Contains(out, c.want) {
				t.Error(out)
			}
			id := rig.Tokens["fred"].PublicID
			if tells := strings.Contains(out, "[i]"); tells != (c.want == "is in\n") ||
				tells && (!strings.Contains(out, "key "+id+"\n") || strings.Contains(out, id+"c")) {
				t.Errorf("DEBUG=1 tells: %s", out)
			}
		})
	}
}

func TestShellCarriesFiles(t *testing.T) {
	t.Parallel()
	h, rig := gateHost(t)
	for _, program := range []string{"sftp", "scp", "rsync"} {
		posterntest.Need(t, program)
	}
	options := func(code string) []string {
		return []string{
			"-F", "none", "-i", h.KeyFile, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
			"UserKnownHostsFile=/dev/null", "-o",
			"SetEnv=LC_POSTERN_OTP=" + code,
		}
	}
	target := filepath.Join(h.Dir, "home/fred/copied")
	source := filepath.Join(h.Dir, "etc/yubikey_mappings")
	for name, command := range map[string]func(code string) *exec.Cmd{
		"sftp": func(code string) *exec.Cmd {
			cmd := h.Command("sftp", append(options(code), "-b", "-", "fred@127.0.0.1")...)
			cmd.Stdin = strings.NewReader("put " + source + " " + target + "\n")
			return cmd
		},
		"scp": func(code string) *exec.Cmd {
			return h.Command("scp", append(options(code), source, "fred@127.0.0.1:"+target)...)
		},
		"scp of old": func(code string) *exec.Cmd {
			return h.Command("scp", append(append([]string{"-O"}, options(code)...), source,
				"fred@127.0.0.1:"+target)...)
		},
		"rsync": func(code string) *exec.Cmd {
			return h.Command("rsync", "-e", "ssh "+strings.Join(options(code), " "), source, "fred@127.0.0.1:"+target)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := command("x").CombinedOutput(); err == nil {
				t.Errorf("it works without a code: %s", out)
			}
			if _, err := os.Stat(target); err == nil {
				t.Fatal("it wrote without a code")
			}
			if out, err := command(rig.Touch(t, "fred")).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if posterntest.Read(t, target) != posterntest.Read(t, source) {
				t.Error("it copied something else")
			}
			os.Remove(target)
		})
	}
}

// expectAll reads until all of the words have come.
func expectAll(t *testing.T, r io.Reader, words ...string) string {
	t.Helper()
	var mu sync.Mutex
	var got []byte
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			mu.Lock()
			got = append(got, buf[:n]...)
			all := !slices.ContainsFunc(words, func(w string) bool { return !bytes.Contains(got, []byte(w)) })
			mu.Unlock()
			if all || err != nil {
				done <- err
				return
			}
		}
	}()
	var err error
	select {
	case err = <-done:
	case <-time.After(2 * time.Minute):
		err = errors.New("nothing more comes")
	}
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		t.Fatalf("got %q, not %q: %v", got, words, err)
	}
	return string(got)
}
