package process_test

import (
	"strings"
	"testing"

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
