package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/sshd/process"
)

func TestHowSSHDWasStarted(t *testing.T) {
	for _, c := range []struct{ title, want string }{
		{"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups", "/usr/sbin/sshd -f /etc/ssh/sshd_config"},
		{
			"sshd: /opt/sshd -De -f /etc/x -p 22 -h /k -oPermitTunnel=yes [listener] 1 of 10 startups",
			"/opt/sshd -o PermitTunnel=yes -f /etc/x",
		},
		{"sshd: /usr/sbin/sshd -4Df/etc/x -o X=y [listener] 0 of 10-100 startups", "/usr/sbin/sshd -o X=y -f /etc/x"},
		{"/usr/sbin/sshd\x00-D\x00-f\x00/etc/a b", "/usr/sbin/sshd -f /etc/a b"},
		{"sshd: alice [priv]", ""},
		{"sshd: /usr/sbin/sshd -D -f /etc/a b [listener] 0 of 10-100 startups", ""},
		{"sshd: /usr/sbin/sshd -D -o PermitTunnel yes [listener] 0 of 10-100 startups", ""},
		{"sshd: /usr/sbin/sshd -f sshd_config [listener] 0 of 10-100 startups", ""},
		{"sshd: /usr/sbin/sshd -D -f", ""},
		{"sshd: /usr/sbin/sshd -f [listener] 0 of 10-100 startups", ""},
		{"sshd: /usr/sbin/sshd -Z [listener] 0 of 10-100 startups", ""},
		{"sshd: sshd [listener] 0 of 10-100 startups", ""},
		{"", ""},
	} {
		command, _, err := process.Command(c.title)
		if got := strings.Join(command, " "); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.title, got, err, c.want)
		}
	}
}

// TestAnSSHDThatExaminesDoesNotListen has an audit run beside: what sshd it starts is not told
// to reload, nor asked about its configuration.
func TestAnSSHDThatExaminesDoesNotListen(t *testing.T) {
	posterntest.NeedRoot(t)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "sshd")
	if err := os.WriteFile(program, []byte(posterntest.Read(t, shell)), 0o700); err != nil {
		t.Fatal(err)
	}
	for argument, listens := range map[string]bool{"-D": true, "-T": false, "-t": false} {
		cmd := exec.Command(program, "-c", "echo; read x", "sshd", argument)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil { // it runs
			t.Error(err)
		}
		pids, err := process.Listeners()
		if err != nil || slices.Contains(pids, cmd.Process.Pid) != listens {
			t.Errorf("sshd %s: listeners %v, %v; it is %d", argument, pids, err, cmd.Process.Pid)
		}
		in.Close()
		_ = cmd.Wait() // read fails at the end of its input
	}
}
