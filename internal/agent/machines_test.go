package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// installation is a server, hosts and a laptop, each a machine of its own on one network.
type installation struct {
	t       *testing.T
	id      *posterntest.Machine // the server
	laptop  *posterntest.Machine // people's, at 192.0.2.2
	hosts   map[string]*posterntest.Machine
	libvirt map[string]*posterntest.Libvirtd // by host
}

// startInstallation starts a server, and hosts by name with whether they run libvirt.
func startInstallation(t *testing.T, hosts map[string]bool) *installation {
	t.Helper()
	i := &installation{
		t: t, id: posterntest.StartMachine(t), laptop: posterntest.StartMachine(t),
		hosts: map[string]*posterntest.Machine{}, libvirt: map[string]*posterntest.Libvirtd{},
	}
	i.id.Reach(i.id, "id", "192.0.2.1")
	i.laptop.Reach(i.id, "laptop", "192.0.2.2")
	names := "192.0.2.1 id.example.internal id\n192.0.2.2 laptop\n"
	for name, libvirt := range hosts {
		m := posterntest.StartMachine(t)
		address := fmt.Sprintf("192.0.2.%d", 10+len(i.hosts))
		m.Reach(i.id, name, address)
		names += address + " " + name + ".example.internal " + name + "\n"
		i.hosts[name] = m
		m.SSHServer()
		m.Must(logs)
		if libvirt {
			i.libvirt[name] = m.Libvirtd()
		}
	}
	for _, m := range i.hosts {
		m.Must("cat >>/etc/hosts <<'END'\n" + names + "END")
	}
	i.id.Must("cat >>/etc/hosts <<'END'\n" + names + "END")
	i.laptop.Must("cat >>/etc/hosts <<'END'\n" + names + "END")
	i.id.Serve()
	i.laptop.Must("cat >/etc/ssh/ssh_known_hosts <<'END'\n" +
		i.id.Must("postern ssh known-hosts '*.example.internal'") + "\nEND")
	return i
}

// logs keeps sshd's log where Debian's rsyslog does.
const logs = `touch /var/log/auth.log && cat >/etc/rsyslog.conf <<'END'
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="/dev/log")
auth,authpriv.* /var/log/auth.log
END
rsyslogd -i /run/rsyslogd.pid
`

// serveTLS has a host's libvirtd serve TLS by a certificate of the installation.
func (i *installation) serveTLS(name string) {
	i.t.Helper()
	i.id.Must("postern ca issue --server " + name + ".example.internal --layout libvirt --out " + name)
	i.copy(i.id, "/root/"+name, i.hosts[name], "/etc/pki")
	l := i.libvirt[name]
	file := filepath.Join(l.Dir, "conf/libvirtd.conf")
	conf := strings.NewReplacer(
		`listen_addr = "127.0.0.1"`, `listen_addr = "0.0.0.0"`,
		l.Dir+"/pki/serverkey.pem", "/etc/pki/libvirt/private/serverkey.pem",
		l.Dir+"/pki/servercert.pem", "/etc/pki/libvirt/servercert.pem",
		l.Dir+"/pki/cacert.pem", "/etc/pki/CA/cacert.pem",
	).Replace(posterntest.Read(i.t, file))
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		i.t.Fatal(err)
	}
	l.Kill()
	if err := l.Start(); err != nil {
		i.t.Fatal(err)
	}
}

// copy copies a directory from one machine to another.
func (i *installation) copy(from *posterntest.Machine, dir string, to *posterntest.Machine, into string) {
	i.t.Helper()
	if err := os.CopyFS(to.Inside(into), os.DirFS(from.Inside(dir))); err != nil {
		i.t.Fatal(err)
	}
}

// user is a person at the laptop.
type user struct {
	*posterntest.Shell
	name, yubikey, key string // the software token's public ID, the SSH key's fingerprint
}

// add adds a person with a software token, and an account with an SSH key on each host.
func (i *installation) add(name string) *user {
	i.t.Helper()
	i.id.Must("postern user add " + name)
	for _, m := range i.hosts {
		m.Must("id " + name + " 2>/dev/null || useradd -m -s /bin/bash -G libvirt " + name)
	}
	i.laptop.Must("id " + name + " 2>/dev/null || useradd -m -s /bin/bash " + name)
	u := &user{Shell: i.laptop.Shell(name), name: name}
	u.yubikey = strings.TrimSpace(i.run(u, "postern otp token new token.json"))
	i.id.Must("cat >token.csv <<'END'\n" + i.run(u, "postern otp token csv token.json") + "\nEND\n" +
		"postern otp import --person " + name + " token.csv")
	i.run(u, "printf '#!/bin/sh\\nexec postern otp token touch ~/token.json\\n' >touch && chmod 755 touch")
	i.run(u, "export SSH_ASKPASS=~/touch SSH_ASKPASS_REQUIRE=force")
	i.run(u,
		"mkdir -p -m 700 ~/.ssh && rm -f ~/.ssh/id_ed25519 && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
	u.key = strings.Fields(i.run(u, "ssh-keygen -lf ~/.ssh/id_ed25519.pub"))[1]
	public := i.run(u, "cat ~/.ssh/id_ed25519.pub")
	for _, m := range i.hosts {
		m.Must("install -d -m 700 -o " + name + " /home/" + name + "/.ssh && echo '" + public + "' >/home/" + name +
			"/.ssh/authorized_keys")
	}
	return u
}

// run has a person run a command, which has to succeed.
func (i *installation) run(u *user, command string) string {
	i.t.Helper()
	out, code := u.Run(command)
	if code != 0 {
		i.t.Fatalf("%s: %s: exit %d: %s", u.name, command, code, out)
	}
	return out
}

// stay has a person log in on a host, and not log out.
func (i *installation) stay(u *user, host string) {
	i.t.Helper()
	home := "/home/" + u.name
	i.laptop.Shell(u.name).Start("env SSH_ASKPASS="+home+"/touch SSH_ASKPASS_REQUIRE=force ssh "+host+
		".example.internal 'echo i''n; sleep 3600'", func(shown string) bool { return strings.Contains(shown, "in") })
}

var tookWords = regexp.MustCompile(`; answered in \S+ \S+`)

// calls waits until the timeline has that many calls on a host that end a virtual machine,
// and returns their sentences, but how long they took.
func (i *installation) calls(host string, count int) []string {
	i.t.Helper()
	for {
		var all []string
		for line := range strings.Lines(i.id.Must("postern log list --kind libvirt --host " + host)) {
			if _, sentence, ok := strings.Cut(line, "Z  "); ok && strings.Contains(line, "domainDestroy") {
				all = append(all, tookWords.ReplaceAllString(strings.TrimSpace(sentence), ""))
			}
		}
		if len(all) >= count {
			return all
		}
		posterntest.Pause(i.t)
	}
}

// TestThreeHosts has two people, who are both signed in on two hypervisors, end virtual
// machines of one name in each way that libvirt has. Each sentence names the right person,
// host and session.
func TestThreeHosts(t *testing.T) {
	posterntest.Soak(t)
	i := startInstallation(t, map[string]bool{"web1": false, "hv1": true, "hv2": true})
	i.serveTLS("hv2")
	alice, bob := i.add("alice"), i.add("bob")
	for name := range i.hosts {
		i.hosts[name].Join(i.id, name)
		i.run(alice, "ssh "+name+".example.internal sudo postern ssh config --mode key-and-code --apply")
		i.run(alice, "ssh "+name+".example.internal sudo postern ssh config --confirm")
	}
	for _, u := range []*user{alice, bob} {
		i.stay(u, "hv1")
		i.stay(u, "hv2")
	}
	issued := i.id.Must("postern ca issue --client alice --layout libvirt --out alice")
	serial := regexp.MustCompile(`serial +(\S+)`).FindStringSubmatch(issued)[1]
	i.copy(i.id, "/root/alice/libvirt", i.laptop, "/srv/pki")
	i.copy(i.id, "/root/alice/libvirt/private", i.laptop, "/srv/pki")
	i.copy(i.id, "/root/alice/CA", i.laptop, "/srv/pki")
	i.laptop.Must("chown -R alice: /srv/pki")
	both := func(u *user, host string) string {
		return u.name + ", YubiKey " + u.yubikey + " and SSH key " + u.key + ", from 192.0.2.2, ran domainDestroy " +
			"on vm1 (told by " + host + "; the person is exact)."
	}
	virsh := "virsh -q -c qemu:///system destroy vm1"
	tls := fmt.Sprintf("virsh -q -c 'qemu+tls://hv2.example.internal:%d/system?pkipath=/srv/pki' destroy vm1",
		i.libvirt["hv2"].TLSPort)
	steps := []struct {
		who                 *user
		host, command, want string
	}{
		{alice, "hv2", "ssh hv2.example.internal " + virsh, both(alice, "hv2")},
		{bob, "hv2", "ssh hv2.example.internal " + virsh, both(bob, "hv2")},
		{bob, "hv1", "ssh hv1.example.internal " + virsh, both(bob, "hv1")},
		{alice, "hv2", "ssh hv2.example.internal sudo " + virsh, both(alice, "hv2")},
		{bob, "hv2", "DISPLAY=:0 virsh -q -c qemu+ssh://hv2.example.internal/system destroy vm1", both(bob, "hv2")},
		// No session on the host belongs to it, also if people are signed in there.
		{alice, "hv2", tls, "alice, certificate " + serial +
			", from 192.0.2.2, ran domainDestroy on vm1 (told by hv2; " +
			"the person is as the host says)."},
	}
	want := map[string][]string{}
	for _, s := range steps {
		i.hosts[s.host].Must("virsh -q -c qemu:///system start vm1")
		if out, code := s.who.Run(s.command); code != 0 {
			t.Errorf("%s: %s: exit %d: %s", s.who.name, s.command, code, out)
			i.hosts[s.host].Must("virsh -q -c qemu:///system destroy vm1")
		}
		want[s.host] = append(want[s.host], s.want)
	}
	for host, want := range want {
		got := i.calls(host, len(want))
		if !slices.Equal(got, want) {
			t.Errorf("on %s:\n%s\nwant\n%s", host, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	who := i.id.Must("postern who")
	for _, u := range []*user{alice, bob} {
		for _, host := range []string{"hv1", "hv2"} {
			if !regexp.MustCompile(`Z  ` + host + ` +` + u.name + ` +exact .*` + u.yubikey).MatchString(who) {
				t.Errorf("%s is not signed in on %s:\n%s", u.name, host, who)
			}
		}
	}
}
