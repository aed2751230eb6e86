package posterntest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// PHP starts php-fpm on a Unix socket of its own until the test ends, and
// returns the socket's path.
func PHP(t testing.TB) string {
	t.Helper()
	bin := Need(t, "php-fpm*")
	dir := t.TempDir()
	socket := filepath.Join(dir, "fpm.sock")
	if len(socket) > 100 {
		short, err := os.MkdirTemp("", "fpm")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(short) })
		socket = filepath.Join(short, "s")
	}
	conf := filepath.Join(dir, "fpm.conf")
	text := fmt.Sprintf("[global]\nerror_log = %s/log\ndaemonize = no\n[www]\nlisten = %s\npm = static\npm.max_children = 2\n", dir, socket)
	args := []string{"-n", "-F", "-y", conf}
	if os.Geteuid() == 0 {
		text += "user = root\ngroup = root\n"
		args = append(args, "-R")
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	Start(t, cmd, func() bool {
		c, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return socket
}

// Start starts a peer and waits until it is ready, at most 20 seconds. When the
// test ends the peer is told to stop, and killed if it does not.
func Start(t testing.TB, cmd *exec.Cmd, ready func() bool) {
	t.Helper()
	if cmd.Stdout == nil {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
	})
	for start := time.Now(); !ready(); {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", cmd.Path, err, output(cmd))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("%s does not answer\n%s", cmd.Path, output(cmd))
		}
	}
}

func output(cmd *exec.Cmd) []byte {
	f, ok := cmd.Stdout.(*os.File)
	if !ok {
		return nil
	}
	b, _ := os.ReadFile(f.Name())
	return b
}
