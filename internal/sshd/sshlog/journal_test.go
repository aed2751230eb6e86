package sshlog

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestJournal reads a journald of its own, in namespaces of its own. It puts its
// journalctl on PATH, so it is not parallel.
func TestJournal(t *testing.T) {
	posterntest.NeedRoot(t)
	for _, program := range []string{"journalctl", "logger", "nsenter", "setpriv", "unshare"} {
		posterntest.Need(t, program)
	}
	const journald = "/usr/lib/systemd/systemd-journald"
	if _, err := os.Stat(journald); err != nil {
		posterntest.Missing(t, "needs journald (systemd)")
	}
	journal := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
		"mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && mkdir -p /run/systemd/journal "+
			"/run/log/journal && exec "+journald)
	if err := journal.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = journal.Process.Kill()
		_ = journal.Wait()
	})
	pid := ""
	for pid == "" {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", journal.Process.Pid, journal.Process.Pid))
		pid = strings.TrimSpace(string(children))
		if _, err := os.Stat("/proc/" + pid + "/root/run/systemd/journal/dev-log"); err != nil {
			pid = ""
		}
		posterntest.Pause(t)
	}
	enter := []string{"-t", pid, "-m", "-p", "--"}
	dir := t.TempDir()
	script := "#!/bin/sh\nexec nsenter " + strings.Join(enter, " ") + " /usr/bin/journalctl \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lines := make(chan Line)
	r := &logReader{lines: lines}
	reading, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.readJournal(reading) }()
	write := func(as, tag, message string) {
		t.Helper()
		args := append(enter[:len(enter):len(enter)], "setpriv", "--reuid="+as, "--clear-groups", "logger", "--socket",
			"/run/systemd/journal/dev-log", "-t", tag, message)
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const accepted = "Accepted publickey for alice from 192.0.2.7 port 5022 ssh2"
	for found := false; !found; {
		write("65534", "sshd", "Accepted publickey for mallory from 192.0.2.7 port 5022 ssh2")
		write("0", "cron", "Accepted publickey for cron from 192.0.2.7 port 5022 ssh2")
		write("0", "sshd", accepted) // until journalctl follows
		select {
		case line := <-lines:
			if line.Message != accepted || line.PID == 0 || line.Unverified || time.Since(line.Time) > time.Minute {
				t.Errorf("got %+v", line)
			}
			found = true
		case <-ctx.Done():
			t.Fatal("the journal was not read")
		case <-time.After(200 * time.Millisecond):
		}
	}
	// What is written while journalctl is away is read by the next one.
	stop()
	for ended := false; !ended; {
		select {
		case <-lines:
		case <-done:
			ended = true
		}
	}
	const meanwhile = "Accepted publickey for bob from 192.0.2.7 port 5022 ssh2"
	write("0", "sshd", meanwhile)
	go func() { done <- r.readJournal(ctx) }()
	for line := range lines {
		if line.Message == meanwhile {
			break
		}
	}
	cancel()
	<-done
}
