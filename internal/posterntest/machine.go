package posterntest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Machine is a fresh Debian: mount, UTS, PID and network namespaces with an /etc, /home,
// /run and state of their own, postern and pam_postern installed, and an account alice with
// an SSH key. What is done there stays there. Unlike [Host] it runs nothing by itself.
type Machine struct {
	T    testing.TB
	PID  int    // of the namespaces' first process
	Dir  string // what is written on the machine is below it
	Root *Shell
	init *exec.Cmd // what the namespaces end with
}

// fresh runs inside the namespaces. $1 is the machine's directory, $2 postern, $3 pam_postern.
const fresh = `set -eu
cd "$1"
ip link set lo up
over() {
	mkdir -p "$1/up$2" "$1/work$2"
	mount -t overlay -o "lowerdir=$2,upperdir=$1/up$2,workdir=$1/work$2" overlay "$2"
}
mount -t tmpfs -o mode=755 tmpfs "$1/t"
for d in /etc /var/lib /usr/local /usr/lib/$(uname -m)-linux-gnu/security; do over "$1/t" $d; done
for d in /run /home /srv /mnt /root /var/log; do mount -t tmpfs -o mode=755 tmpfs $d; done
mkdir -p /run/sshd /run/lock /run/php /run/postern /srv/www
touch /usr/local/bin/postern && mount --bind "$2" /usr/local/bin/postern
cp "$3" /usr/lib/$(uname -m)-linux-gnu/security/pam_postern.so
mkdir -p dev/pts dev/shm
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/pts dev/shm
for f in null zero full random urandom tty; do touch dev/$f && mount --bind /dev/$f dev/$f; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount --rbind dev /dev
echo "127.0.0.1 localhost $(hostname)" >/etc/hosts
awk -F: '$3 < 1000 || $3 >= 60000' /etc/passwd >passwd && cat passwd >/etc/passwd # no other people
useradd -m -s /bin/bash alice
su alice -s /bin/sh -c 'mkdir -m 700 ~/.ssh && ssh-keygen -q -t ed25519 -N "" -f ~/.ssh/id_ed25519 &&
	cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys'
echo ready
sleep infinity &
wait $! # and whatever else ends here, as the first process has to
`

// StartMachine starts a machine, which ends with the test.
func StartMachine(t testing.TB) *Machine {
	t.Helper()
	NeedRoot(t)
	for _, p := range []string{"unshare", "nsenter", "ip", "setpriv", "useradd"} {
		Need(t, p)
	}
	m := &Machine{T: t, Dir: OpenDir(t)}
	if err := errors.Join(os.Mkdir(filepath.Join(m.Dir, "t"), 0o755),
		os.Mkdir(filepath.Join(m.Dir, "dev"), 0o755)); err != nil {
		t.Fatal(err)
	}
	m.init = exec.Command("unshare", "--mount", "--propagation", "private", "--uts", "--net", "--pid", "--fork",
		"--kill-child", "--mount-proc", "sh", "-c", fresh, "sh", m.Dir, Program(t), PAMModule(t))
	m.init.Stderr = os.Stderr
	out, err := m.init.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := startTied(m.init)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.init.Process.Kill()
		<-ended
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the machine does not start: %q %v", line, err)
	}
	m.PID = childOf(m.init.Process.Pid)
	m.Root = m.Shell("root")
	return m
}

// Must runs a command as root, which has to succeed, and returns what it printed.
func (m *Machine) Must(command string) string {
	m.T.Helper()
	out, code := m.Root.Run(command)
	if code != 0 {
		m.T.Fatalf("%s: exit %d: %s", command, code, out)
	}
	return out
}

// Write writes a file on the machine.
func (m *Machine) Write(path, content string, mode os.FileMode) error {
	path = m.Inside(path)
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode),
		os.Chmod(path, mode))
}

// Inside returns where a path of the machine is for the test.
func (m *Machine) Inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", m.PID, path) }

// SSHServer runs sshd with Debian's own configuration; alice may use sudo.
func (m *Machine) SSHServer() {
	m.T.Helper()
	Need(m.T, "sudo")
	m.Must("cp /usr/share/openssh/sshd_config /etc/ssh/sshd_config && rm -f /etc/ssh/sshd_config.d/*")
	m.Must("ssh-keygen -A >/dev/null && echo 'alice ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/alice && " +
		"chmod 440 /etc/sudoers.d/alice")
	m.Must(Need(m.T, "sshd"))
}

// Libvirtd runs libvirtd with its QEMU driver where its packages expect it; alice may use it.
func (m *Machine) Libvirtd() *Libvirtd {
	m.T.Helper()
	l := StartLibvirtdInside(m.T, m.PID)
	m.T.Cleanup(l.Stop)
	m.Must("mkdir -p /run/libvirt && mount --bind " + l.Dir + "/run /run/libvirt && usermod -aG libvirt alice")
	return l
}

// Reach gives the machine a name and an address in 192.0.2.0/24, by which the machines reach
// each other, on a network that the first one connects.
func (m *Machine) Reach(first *Machine, name, address string) {
	m.T.Helper()
	m.Must("hostname " + name)
	if m == first {
		m.Must("ip link add eth0 type bridge && ip addr add " + address + "/24 dev eth0 && ip link set eth0 up")
		return
	}
	port := "to-" + name
	args := []string{
		"-t", fmt.Sprint(first.PID), "-n", "--", "ip", "link", "add", port, "type", "veth", "peer", "name",
		"eth0", "netns", fmt.Sprint(m.PID),
	}
	if out, err := exec.Command(Need(m.T, "nsenter"), args...).CombinedOutput(); err != nil {
		m.T.Fatalf("%v: %s", err, out)
	}
	first.Must("ip link set " + port + " master eth0 && ip link set " + port + " up")
	m.Must("ip addr add " + address + "/24 dev eth0 && ip link set eth0 up")
}

// Serve runs Postern's server, as id.example.internal, on the machine.
func (m *Machine) Serve() {
	m.T.Helper()
	m.Must("postern init --name 'Example Org' --domain example.com --domain example.internal")
	config := "{\n\tpostern {\n\t\tportal id.example.internal\n\t}\n}\n"
	if err := m.Write("/etc/postern/Caddyfile", config, 0o644); err != nil {
		m.T.Fatal(err)
	}
	m.Shell("root").Start("postern run --config /etc/postern/Caddyfile", func(shown string) bool {
		return strings.Contains(shown, "serves /etc/postern/Caddyfile")
	})
	m.Must("until bash -c '</dev/tcp/127.0.0.1/443' 2>/dev/null; do sleep 0.1; done")
}

// Join has the machine join the installation of a server, as a host of that name in
// example.internal, and runs its agent.
func (m *Machine) Join(server *Machine, name string) {
	m.T.Helper()
	m.Must(server.Must("postern host add "+name+" --name "+name+".example.internal") + " --apply")
	m.Shell("root").Start("postern agent", func(shown string) bool { return strings.Contains(shown, "ready: ") })
}
