package setup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/hostconf"
)

// running is an sshd that runs, as systemd knows it: what a signal makes it read
// has to be right, or it ends with 255, and RestartPreventExitStatus=255 of
// Debian's ssh.service keeps it down.
type running struct {
	Service
	down bool
}

func newRunning(t *testing.T, root string, systemd bool) *running {
	command, file := posterntest.SSHDCommand(t, root), filepath.Join(root, "etc/ssh/sshd_config")
	command = append(command, "-f", file)
	accepts := func() bool { return exec.Command(command[0], append(command[1:], "-t")...).Run() == nil }
	r := &running{}
	r.Service = Service{
		Listeners: func() ([]int, error) { return []int{4711}, nil },
		Listens:   func(int) string { return "" },
		Command:   func(int) ([]string, string, error) { return command, file, nil },
		Signal:    func(int) error { r.down = r.down || !accepts(); return nil },
		Systemctl: func(_ context.Context, args ...string) (string, error) {
			switch {
			case !systemd || args[len(args)-1] != "ssh.service":
				return "inactive", errors.New("exit status 3")
			case args[0] == "show":
				return "4711\n", nil
			case args[0] == "reload" && !accepts(): // ExecReload=sshd -t comes first
				return "Job failed", errors.New("exit status 1")
			case args[0] == "reload":
				return "", r.Signal(4711)
			}
			return "", nil
		},
	}
	return r
}

// killed runs do until its step number n, and reports whether it came so far.
func killed(a Applier, n int, do func(Applier)) bool {
	return posterntest.Killed(n, func(step func()) {
		a.step = step
		do(a)
	})
}

// TestKilledAtEachStep ends the process that applies a setup before each change
// that it makes, and the one that puts things back after the next boot, too.
func TestKilledAtEachStep(t *testing.T) {
	posterntest.NeedRoot(t)
	const hardening = "etc/ssh/sshd_config.d/00-complianceascode-hardening.conf"
	for name, files := range map[string]map[string]string{
		"stock": {"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n"},
		"refused": {"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n" +
			"AuthenticationMethods keyboard-interactive\n", hardening: "KbdInteractiveAuthentication no\n"},
		"no systemd": {"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 0; ; n++ {
				came := false
				for m := 0; ; m++ {
					var again bool
					came, again = killTwice(t, files, name != "no systemd", n, m)
					if !again {
						break
					}
				}
				if !came {
					break
				}
				if n > 20 {
					t.Fatal("no end")
				}
			}
		})
	}
}

// killTwice reports whether applying came to step n, and putting back to step m.
func killTwice(t *testing.T, files map[string]string, systemd bool, n, m int) (applying, back bool) {
	t.Helper()
	root := posterntest.SSHDFiles(t, files)
	sshd := newRunning(t, root, systemd)
	before, refused := tree(t, root), sshd.Test(t.Context()) != nil
	a := Applier{Root: root, Dir: t.TempDir(), Check: sshd.Test, Test: sshd.Test, Reload: sshd.Reload}
	config, err := Setup{Mode: KeyAndCode}.Files(root)
	if err != nil {
		t.Fatal(err)
	}
	applying = killed(a, n, func(a Applier) {
		if _, err := a.Apply(t.Context(), config, time.Hour); refused != errors.Is(err, ErrRefused) {
			t.Errorf("steps %d, %d: applied: %v", n, m, err)
		}
	})
	if dir, _, err := a.pending(); err == nil {
		anotherBoot(t, dir)
	}
	back = killed(a, m, func(a Applier) { _, _ = a.RollBackOverdue(t.Context()) })
	if _, err := a.RollBackOverdue(t.Context()); err != nil && !(refused && errors.Is(err, ErrRefused)) {
		t.Errorf("steps %d, %d: put back: %v", n, m, err)
	}
	if dir, err := a.Pending(); err == nil {
		t.Errorf("steps %d, %d: %s waits for ever", n, m, dir)
	}
	if after := tree(t, root); after != before {
		t.Errorf("steps %d, %d:\n%s\nbefore:\n%s", n, m, after, before)
	}
	if sshd.down {
		t.Errorf("steps %d, %d: sshd is down", n, m)
	}
	return applying, back
}

// TestReloadThatFailsIsNoSignal has systemd refuse, for whatever reason.
func TestReloadThatFailsIsNoSignal(t *testing.T) {
	root := posterntest.SSHDFiles(t, map[string]string{"etc/ssh/sshd_config": "UsePAM yes\n"})
	sshd := newRunning(t, root, true)
	systemctl, signalled := sshd.Systemctl, false
	sshd.Signal = func(int) error { signalled = true; return nil }
	sshd.Systemctl = func(ctx context.Context, args ...string) (string, error) {
		if args[0] == "reload" {
			return "Access denied", errors.New("exit status 4")
		}
		return systemctl(ctx, args...)
	}
	if err := sshd.Reload(t.Context()); err == nil || signalled {
		t.Errorf("signalled: %t, %v", signalled, err)
	}
}

// TestReloadReturnsOnceSSHDServes has sshd take its time: it goes on in its old life,
// then listens no more, then again.
func TestReloadReturnsOnceSSHDServes(t *testing.T) {
	root := posterntest.SSHDFiles(t, map[string]string{"etc/ssh/sshd_config": "UsePAM yes\n"})
	for name, systemd := range map[string]bool{"by systemd": true, "by signal": false} {
		t.Run(name, func(t *testing.T) {
			sshd := newRunning(t, root, systemd)
			lives, signalled := []string{"old", "old", "", "", "new"}, false
			sshd.Signal = func(int) error { signalled = true; return nil }
			sshd.Listens = func(int) string {
				if signalled && len(lives) > 1 {
					lives = lives[1:]
				}
				return lives[0]
			}
			if err := sshd.Reload(t.Context()); err != nil || lives[0] != "new" {
				t.Errorf("it returns when sshd is %q: %v", lives[0], err)
			}
		})
	}
	for name, life := range map[string]string{"that is not signalled": "old", "that does not come back": ""} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			sshd := newRunning(t, root, false)
			now := "old"
			sshd.Signal = func(int) error { now = life; cancel(); return nil }
			sshd.Listens = func(int) string { return now }
			if err := sshd.Reload(ctx); postern.CodeOf(err) != postern.Unavailable {
				t.Errorf("it succeeds: %v", err)
			}
		})
	}
}

// TestRefusalNamesTheLine holds what sshd's own complaint does not say.
func TestRefusalNamesTheLine(t *testing.T) {
	root := posterntest.SSHDFiles(t, map[string]string{
		"etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n" +
			"KbdInteractiveAuthentication yes\n",
		"etc/ssh/sshd_config.d/00-a-hardening.conf": "# CIS\nKbdInteractiveAuthentication no\n",
		"etc/ssh/sshd_config.d/00-postern.conf": "KbdInteractiveAuthentication yes\nAuthenticationMethods " +
			keyThenCode + "\n",
		"etc/ssh/sshd_config.d/01-not-the-cause.cnf": "KbdInteractiveAuthentication no\n",
	})
	sshd := newRunning(t, root, false)
	err := sshd.Test(t.Context())
	const want = "/etc/ssh/sshd_config.d/00-a-hardening.conf"
	line, ok := hostconf.Files{Root: root}.Blame(hostconf.ConfigFile, err.Error())
	if !ok || line.File != want || line.Line != 2 || !errors.Is(err, ErrRefused) {
		t.Errorf("%v: %v", err, line)
	}
	if os.Remove(filepath.Join(root, want)) != nil || sshd.Test(t.Context()) != nil {
		t.Error("refused without the line")
	}
}
