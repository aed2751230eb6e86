package sshd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// standInSystemctl reloads as Debian's ssh.service does: ExecReload is sshd -t,
// then kill -HUP $MAINPID. Its RestartPreventExitStatus=255 needs no words: a host
// whose sshd ended with 255 has none any more.
const standInSystemctl = `#!/bin/sh
case "$1 $4$3" in
*sshd.service) exit 3 ;;
is-active*) exit 0 ;;
show*) echo 1 ;;
reload*) /usr/sbin/sshd -t && kill -HUP 1 ;;
*) exit 1 ;;
esac
`

// underSystemd has a host's sshd run as a service of systemd's.
func underSystemd(t *testing.T, h *posterntest.Host) {
	t.Helper()
	posterntest.Need(t, "systemctl")
	path := filepath.Join(h.Dir, "systemctl")
	if err := os.WriteFile(path, []byte(standInSystemctl), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := h.Command("sh", "-ec", "mkdir -p /run/systemd/system; mount --bind "+path+" $(command -v systemctl)").
		CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestSSHDIsNeverTakenDown has a hardening role's file, which sorts before ours,
// forbid what ours ask for: sshd would end with 255 if it read them.
func TestSSHDIsNeverTakenDown(t *testing.T) {
	t.Parallel()
	const hardening = "/etc/ssh/sshd_config.d/00-complianceascode-hardening.conf"
	for by, prepare := range map[string]func(*testing.T, *posterntest.Host){
		"by signal": func(*testing.T, *posterntest.Host) {}, "by systemd": underSystemd,
	} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			h, rig, module := configHost(t)
			prepare(t, h)
			apply := func() (string, error) {
				return config(h, "--mode", "key-and-code", "--module", module, "--apply")
			}
			if out, err := apply(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			comeIn := func(command string) {
				t.Helper()
				c, err := h.Connect("alice", posterntest.Answers(rig.Touch(t, "alice")))
				if err != nil {
					t.Fatalf("%v\n%s", err, h.Log())
				}
				defer c.Close()
				s, err := c.NewSession()
				if err != nil {
					t.Fatal(err)
				}
				if out, err := s.CombinedOutput(command); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
			comeIn("sudo -n " + filepath.Join(h.Dir, "postern") + " ssh config --confirm")
			if err := os.WriteFile(h.Inside(hardening), []byte("# CIS 5.1\nKbdInteractiveAuthentication no\n"),
				0o644); err != nil {
				t.Fatal(err)
			}
			before := posterntest.Read(t, h.Inside("/etc/ssh/sshd_config.d/00-postern.conf"))
			out, err := apply()
			if err == nil || !strings.Contains(out, hardening+":2: KbdInteractiveAuthentication no") {
				t.Errorf("what would end sshd is reported as: %v: %s", err, out)
			}
			for range 5 {
				posterntest.Pause(t) // a signalled sshd takes a moment to end
			}
			comeIn("true")
			if after := posterntest.Read(t, h.Inside("/etc/ssh/sshd_config.d/00-postern.conf")); after != before {
				t.Errorf("our file was\n%s\nand is\n%s", before, after)
			}
			if err := os.Remove(h.Inside(hardening)); err != nil {
				t.Fatal(err)
			}
			if out, err := apply(); err != nil {
				t.Errorf("once it is fixed: %v: %s", err, out)
			}
			comeIn("true")
		})
	}
}
