package posterntest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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
	text := fmt.Sprintf("[global]\nerror_log = %s/log\ndaemonize = no\n[www]\nlisten = %s\npm = static\n"+
		"pm.max_children = 2\n", dir, socket)
	args := []string{"-n", "-F", "-y", conf}
	if os.Geteuid() == 0 {
		text += "user = root\ngroup = root\n"
		args = append(args, "-R")
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	Start(t, exec.Command(bin, args...), func() bool { return answers("unix", socket) })
	return socket
}
