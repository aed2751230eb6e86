package sshd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/server/servertest"
	"github.com/postern-project/postern/internal/sshd/socket"
)

// configHost is a host with Debian's stock files, where alice may use sudo, and
// Postern's daemon knows her.
func configHost(t *testing.T) (*posterntest.Host, *servertest.SSH, string) {
	t.Helper()
	posterntest.NeedRoot(t)
	posterntest.Need(t, "sudo")
	module := posterntest.PAMModule(t)
	h := posterntest.StartHost(t, posterntest.HostConfig{
		Accounts: []posterntest.Account{{Name: "alice"}, {Name: "fred"}},
		Files: map[string]string{
			"/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nKbdInteractiveAuthentication no\n" +
				"UsePAM yes\nAcceptEnv LANG LC_*\n",
			"/etc/sudoers.d/alice": "alice ALL=(ALL) NOPASSWD: ALL\n",
			"/etc/pam.d/sshd": "@include common-auth\naccount required pam_nologin.so\n" +
				"@include common-account\nsession required pam_loginuid.so\n",
		},
	})
	h.Install(t)
	rig := servertest.NewSSH(t, "alice")
	rig.Serve(t, filepath.Join(h.Dir, "pam.sock"), socket.Config{}, 0o600)
	// Backups stay inside.
	if err := h.Command("sh", "-c", "mkdir -p /var/lib/postern && mount -t tmpfs tmpfs /var/lib/postern").
		Run(); err != nil {
		t.Fatal(err)
	}
	return h, rig, module
}

// config runs postern ssh config on the host as alice does with sudo.
func config(h *posterntest.Host, args ...string) (string, error) {
	command := []string{
		"SUDO_USER=alice", filepath.Join(h.Dir, "postern"), "ssh", "config", "--socket",
		filepath.Join(h.Dir, "pam.sock"),
	}
	cmd := h.Command("env", append(command, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func TestApplyAndConfirm(t *testing.T) {
	t.Parallel()
	h, rig, module := configHost(t)
	old, err := h.Connect("alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	out, err := config(h, "--mode", "key-and-code", "--module", module, "--apply")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The session that was there proves nothing about the new configuration.
	s, err := old.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.CombinedOutput("sudo -n " + filepath.Join(h.Dir, "postern") +
		" ssh config --confirm"); err == nil ||
		!strings.Contains(string(out), "older than the new configuration") {
		t.Errorf("the old session confirms: %s", out)
	}
	if c, err := h.Connect("alice", nil); err == nil {
		c.Close()
		t.Error("the key alone opens the host")
	}
	c, err := h.Connect("alice", posterntest.Answers(rig.Touch(t, "alice")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err = c.NewSession(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.CombinedOutput("sudo -n " + filepath.Join(h.Dir, "postern") +
		" ssh config --confirm"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestApplyIsPutBackWithoutConfirmation(t *testing.T) {
	t.Parallel()
	h, _, module := configHost(t)
	if out, err := config(h, "--mode", "key-and-code", "--module", module, "--apply", "--within", "1s"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if c, err := h.Connect("alice", nil); err == nil {
		c.Close()
		t.Error("the key alone opens the host")
	}
	for !strings.Contains(posterntest.Read(t, h.Inside("/etc/pam.d/sshd")), "\n@include common-auth") &&
		!strings.HasPrefix(posterntest.Read(t, h.Inside("/etc/pam.d/sshd")), "@include common-auth") {
		posterntest.Pause(t)
	}
	if _, err := os.Stat(h.Inside("/etc/ssh/sshd_config.d/00-postern.conf")); err == nil {
		t.Error("the new file is still there")
	}
	waitForKeyAlone(t, h)
}

// crashedHost is a host on which the process that would put a new configuration
// back was ended, as by a crash of the host. It returns that configuration's
// module, too.
func crashedHost(t *testing.T) (*posterntest.Host, string) {
	t.Helper()
	posterntest.Need(t, "pgrep")
	h, _, module := configHost(t)
	if out, err := config(h, "--mode", "key-and-code", "--module", module, "--apply", "--within", "1h"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	waits, err := h.Command("pgrep", "-f", "--", "--roll-back /var/lib/postern/ssh-backup/").Output()
	if err != nil {
		t.Fatalf("nothing waits to put it back: %v", err)
	}
	if out, err := h.Command("kill", append([]string{"-KILL"}, strings.Fields(string(waits))...)...).
		CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return h, module
}

// TestDoctorTellsWhatACrashLeft has it put back by hand.
func TestDoctorTellsWhatACrashLeft(t *testing.T) {
	t.Parallel()
	h, _ := crashedHost(t)
	doctor := func() string {
		out, _ := h.Command(filepath.Join(h.Dir, "postern"), "doctor").CombinedOutput()
		return string(out)
	}
	_, fix, found := strings.Cut(doctor(), "--roll-back ")
	if !found {
		t.Fatalf("nothing is said: %s", doctor())
	}
	dir, _, _ := strings.Cut(fix, "\n")
	if out, err := config(h, "--within", "0s", "--roll-back", dir); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(h.Inside("/etc/ssh/sshd_config.d/00-postern.conf")); err == nil {
		t.Error("the new file is still there")
	}
	if said := doctor(); strings.Contains(said, "--roll-back") {
		t.Errorf("it still waits: %s", said)
	}
}

// TestWhatACrashLeftIsPutBack says at the next boot what the service says then.
func TestWhatACrashLeftIsPutBack(t *testing.T) {
	t.Parallel()
	h, module := crashedHost(t)
	dropIn := h.Inside("/etc/ssh/sshd_config.d/00-postern.conf")
	if out, err := config(h, "--roll-back-overdue"); err != nil || out != "" {
		t.Errorf("before its time is over: %v: %s", err, out)
	}
	if _, err := os.Stat(dropIn); err != nil {
		t.Fatal(err)
	}
	if out, err := config(h, "--mode", "password-and-code", "--module", module, "--apply"); err == nil ||
		!strings.Contains(out, "waits to be confirmed") {
		t.Errorf("applied over what waits: %v: %s", err, out)
	}
	// Another boot has another ID.
	h.Write(t, "boot_id", "0c3f5a2e-9a2b-4c1d-8e7f-112233445566\n")
	if out, err := h.Command("mount", "--bind", filepath.Join(h.Dir, "boot_id"),
		"/proc/sys/kernel/random/boot_id").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := config(h, "--roll-back-overdue"); err != nil || !strings.Contains(out, "the old one is back") {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(dropIn); err == nil {
		t.Error("the new file is still there")
	}
	waitForKeyAlone(t, h)
	if out, err := config(h, "--mode", "key-and-code", "--module", module, "--apply"); err != nil {
		t.Errorf("the next one is not applied: %v: %s", err, out)
	}
}

// waitForKeyAlone waits until alice's key opens the host by itself: sshd may be
// between two lives for a moment.
func waitForKeyAlone(t *testing.T, h *posterntest.Host) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		c, err := h.Connect("alice", nil)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the old way in does not work again: %v", err)
		}
		posterntest.Pause(t)
	}
}

func TestNobodyIsLockedOutUnwarned(t *testing.T) {
	t.Parallel()
	h, _, module := configHost(t)
	before := posterntest.Read(t, h.Inside("/etc/pam.d/sshd"))
	for name, c := range map[string]struct {
		user, want string
		args       []string
	}{
		"unknown to Postern": {"fred", "knows no person", nil},
		"root":               {"root", "root will not be able to log in", nil},
		"no module":          {"alice", "not installed", []string{"--module", "pam_absent.so"}},
		"no daemon":          {"alice", "does not answer", []string{"--socket", "/run/absent"}},
		"no such group":      {"alice", "no group", []string{"--mode", "groups-only", "--group", "absent"}},
		"certificates": {
			"alice", "needs a certificate",
			[]string{"--mode", "certificates", "--user-ca", filepath.Join(h.Dir, "client.pub")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := h.Command("env", append([]string{
				"SUDO_USER=" + c.user, filepath.Join(h.Dir, "postern"), "ssh", "config", "--apply",
				"--socket", filepath.Join(h.Dir, "pam.sock"), "--module", module,
			}, c.args...)...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	if out, err := config(h, "--apply", "--module", filepath.Join(h.Dir, "absent.so"), "--mode", "hope"); err == nil {
		t.Errorf("hope is a mode: %s", out)
	}
	if after := posterntest.Read(t, h.Inside("/etc/pam.d/sshd")); after != before {
		t.Errorf("something was changed:\n%s", after)
	}
	if out, err := config(h, "--mode", "password-and-code"); err != nil ||
		!strings.Contains(out, "# /etc/pam.d/sshd\n") ||
		!strings.Contains(out, "AuthenticationMethods keyboard-interactive:pam") {
		t.Errorf("printing: %v: %s", err, out)
	}
}

// TestApplyTellsOfOneFactorLeft has an older Match block let fred in by key.
func TestApplyTellsOfOneFactorLeft(t *testing.T) {
	t.Parallel()
	h, _, module := configHost(t)
	old := h.Inside("/etc/ssh/sshd_config.d/50-old.conf")
	block := func(mark string) {
		t.Helper()
		if err := os.WriteFile(old, []byte("Match User fred\n"+mark+"\tAuthenticationMethods publickey\n"),
			0o644); err != nil {
			t.Fatal(err)
		}
	}
	apply := func() (string, error) { return config(h, "--mode", "key-and-code", "--module", module, "--apply") }
	block("")
	before := posterntest.Read(t, h.Inside("/etc/pam.d/sshd"))
	if out, err := apply(); err == nil || !strings.Contains(out, "50-old.conf:2: ") ||
		!strings.Contains(out, "one factor") {
		t.Errorf("applied beside one factor: %v: %s", err, out)
	}
	if after := posterntest.Read(t, h.Inside("/etc/pam.d/sshd")); after != before {
		t.Errorf("something was changed:\n%s", after)
	}
	block("\t# postern: one factor is meant\n")
	if out, err := apply(); err != nil {
		t.Errorf("what is meant is refused: %v: %s", err, out)
	}
}
