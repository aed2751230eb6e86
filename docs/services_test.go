package docs_test

import (
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

func sshServer(h *host) { h.SSHServer() }

func libvirtd(h *host) { h.Libvirtd() }

// phpFPM runs php-fpm on the socket that Debian's alternatives name.
func phpFPM(h *host) {
	h.Must("cat >/run/php/fpm.conf <<'END'\n[global]\ndaemonize = yes\nerror_log = /run/php/log\n[www]\n" +
		"user = www-data\ngroup = www-data\n" +
		"listen = /run/php/php-fpm.sock\nlisten.mode = 0666\npm = static\npm.max_children = 2\nEND\n" +
		posterntest.Need(h.T, "php-fpm*") + " -n -y /run/php/fpm.conf")
}

// secondHost adds the host hv1, which runs sshd and libvirt, to the server's network, as
// 192.0.2.2 beside the server's 192.0.2.1. Both see what is in /mnt.
func secondHost(h *host) {
	hv := newHost(h.T)
	hv.SSHServer()
	hv.Must("rm /home/alice/.ssh/authorized_keys")
	hv.Libvirtd()
	h.hosts["hv1"] = hv
	shared := posterntest.OpenDir(h.T)
	for _, x := range []*host{h, hv} {
		x.Must("mount --bind " + shared + " /mnt && chmod 755 /mnt")
	}
	h.Reach(h.Machine, "id", "192.0.2.1")
	hv.Reach(h.Machine, "hv1", "192.0.2.2")
	h.Must("echo 192.0.2.2 hv1.example.internal hv1 >>/etc/hosts; echo 192.0.2.1 id.example.internal >>/etc/hosts")
	hv.Must("echo 192.0.2.1 id.example.internal >>/etc/hosts; echo 192.0.2.2 hv1.example.internal hv1 >>/etc/hosts")
}

// freeRADIUS looks that its packages are there. Those of its modules that are
// enabled at first and that the page does not use are left out.
func freeRADIUS(h *host) {
	for _, p := range []string{"freeradius", "radtest", "update-ca-certificates"} {
		posterntest.Need(h.T, p)
	}
	h.Must("test -e /usr/lib/freeradius/rlm_yubikey.so")
	h.Must("rm -f /etc/freeradius/3.0/mods-enabled/eap /etc/freeradius/3.0/sites-enabled/inner-tunnel")
}

// grafana stands in for Grafana, which Debian does not have: it signs in whom the
// headers name, as auth.proxy with these settings does.
func grafana(h *host) {
	h.Must("mkdir -p /srv/grafana && cat >/srv/grafana/index.php <<'END'\n" + `<?php
$name = $_SERVER['HTTP_POSTERN_PERSON'] ?? '';
if ($name === '') { http_response_code(401); exit('{"message":"Unauthorized"}'); }
header('Content-Type: application/json');
$email = $_SERVER['HTTP_POSTERN_EMAIL'] ?? '';
echo json_encode(['id' => 2, 'email' => $email, 'name' => $name, 'login' => $name, 'orgId' => 1]), "\n";
` + "END\n" + posterntest.Need(h.T, "php") + " -n -S 127.0.0.1:3000 /srv/grafana/index.php >/dev/null 2>&1 &")
}
