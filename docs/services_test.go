package docs_test

import "github.com/postern-project/postern/internal/posterntest"

// services are what Debian starts when its package is installed, by the tutorial
// that needs it.
var services = map[string][]func(*host){
	"close-wordpress":     {phpFPM},
	"two-factors-for-ssh": {sshServer},
}

// must runs a command as root, which has to succeed.
func (h *host) must(command string) {
	h.t.Helper()
	if out, code := h.root.run(command); code != 0 {
		h.t.Fatalf("%s: exit %d: %s", command, code, out)
	}
}

// phpFPM runs php-fpm on the socket that Debian's alternatives name.
func phpFPM(h *host) {
	h.must("cat >/run/php/fpm.conf <<'END'\n[global]\ndaemonize = yes\nerror_log = /run/php/log\n[www]\nuser = www-data\ngroup = www-data\n" +
		"listen = /run/php/php-fpm.sock\nlisten.mode = 0666\npm = static\npm.max_children = 2\nEND\n" +
		posterntest.Need(h.t, "php-fpm*") + " -n -y /run/php/fpm.conf")
}

// sshServer runs sshd with Debian's own configuration; alice may use sudo.
func sshServer(h *host) {
	posterntest.Need(h.t, "sudo")
	h.must("cp /usr/share/openssh/sshd_config /etc/ssh/sshd_config && rm -f /etc/ssh/sshd_config.d/*")
	h.must("ssh-keygen -A >/dev/null && echo 'alice ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice && chmod 440 /etc/sudoers.d/alice")
	h.must(posterntest.Need(h.t, "sshd"))
}
