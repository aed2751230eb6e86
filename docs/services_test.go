package docs_test

import (
	"fmt"

	"github.com/postern-project/postern/internal/posterntest"
)

// services are what Debian starts when its package is installed, by the tutorial
// that needs it.
var services = map[string][]func(*host){
	"close-wordpress":     {phpFPM},
	"two-factors-for-ssh": {sshServer},
	"who-destroyed-vm3":   {sshServer, libvirtd},
	"a-second-host":       {secondHost},
	"radius":              {freeRADIUS},
	"grafana":             {grafana},
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
	h.must("cat >/run/php/fpm.conf <<'END'\n[global]\ndaemonize = yes\nerror_log = /run/php/log\n[www]\n" +
		"user = www-data\ngroup = www-data\n" +
		"listen = /run/php/php-fpm.sock\nlisten.mode = 0666\npm = static\npm.max_children = 2\nEND\n" +
		posterntest.Need(h.t, "php-fpm*") + " -n -y /run/php/fpm.conf")
}

// sshServer runs sshd with Debian's own configuration; alice may use sudo.
func sshServer(h *host) {
	posterntest.Need(h.t, "sudo")
	h.must("cp /usr/share/openssh/sshd_config /etc/ssh/sshd_config && rm -f /etc/ssh/sshd_config.d/*")
	h.must("ssh-keygen -A >/dev/null && echo 'alice ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice && chmod 440 " +
		"/etc/sudoers.d/alice")
	h.must(posterntest.Need(h.t, "sshd"))
}

// libvirtd runs libvirtd with its QEMU driver where its packages expect it.
func libvirtd(h *host) {
	h.t.Helper()
	l := posterntest.StartLibvirtdInside(h.t, h.pid)
	h.t.Cleanup(l.Stop)
	h.must("mkdir -p /run/libvirt && mount --bind " + l.Dir + "/run /run/libvirt && usermod -aG libvirt alice")
}

// secondHost adds the host hv1, which runs sshd and libvirt, to the server's network, as
// 192.0.2.2 beside the server's 192.0.2.1. Both see what is in /mnt.
func secondHost(h *host) {
	hv := newHost(h.t)
	sshServer(hv)
	hv.must("rm /home/alice/.ssh/authorized_keys")
	libvirtd(hv)
	h.hosts["hv1"] = hv
	shared := posterntest.OpenDir(h.t)
	for _, x := range []*host{h, hv} {
		x.must("mount --bind " + shared + " /mnt && chmod 755 /mnt")
	}
	outside := func(args ...string) {
		command(h.t, "nsenter", append([]string{"-t", fmt.Sprint(h.pid), "-n", "--"}, args...)...)
	}
	outside("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", fmt.Sprint(hv.pid))
	h.must("ip addr add 192.0.2.1/24 dev eth0 && ip link set eth0 up")
	hv.must("ip link set eth1 name eth0 && ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up && hostname hv1")
	h.must("echo 192.0.2.2 hv1.example.internal hv1 >>/etc/hosts; echo 192.0.2.1 id.example.internal >>/etc/hosts")
	hv.must("echo 192.0.2.1 id.example.internal >>/etc/hosts; echo 192.0.2.2 hv1.example.internal hv1 >>/etc/hosts")
}

// freeRADIUS looks that its packages are there. Those of its modules that are
// enabled at first and that the page does not use are left out.
func freeRADIUS(h *host) {
	for _, p := range []string{"freeradius", "radtest", "update-ca-certificates"} {
		posterntest.Need(h.t, p)
	}
	h.must("test -e /usr/lib/freeradius/rlm_yubikey.so")
	h.must("rm -f /etc/freeradius/3.0/mods-enabled/eap /etc/freeradius/3.0/sites-enabled/inner-tunnel")
}

// grafana stands in for Grafana, which Debian does not have: it signs in whom the
// headers name, as auth.proxy with these settings does.
func grafana(h *host) {
	h.must("mkdir -p /srv/grafana && cat >/srv/grafana/index.php <<'END'\n" + `<?php
$name = $_SERVER['HTTP_POSTERN_PERSON'] ?? '';
if ($name === '') { http_response_code(401); exit('{"message":"Unauthorized"}'); }
header('Content-Type: application/json');
$email = $_SERVER['HTTP_POSTERN_EMAIL'] ?? '';
echo json_encode(['id' => 2, 'email' => $email, 'name' => $name, 'login' => $name, 'orgId' => 1]), "\n";
` + "END\n" + posterntest.Need(h.t, "php") + " -n -S 127.0.0.1:3000 /srv/grafana/index.php >/dev/null 2>&1 &")
}
