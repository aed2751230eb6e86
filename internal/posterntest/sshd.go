package posterntest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// PAMModule builds pam_postern with the extra compiler flags and returns its
// path.
func PAMModule(t testing.TB, flags ...string) string {
	t.Helper()
	Need(t, "cc")
	if _, err := os.Stat("/usr/include/security/pam_modules.h"); err != nil {
		Missing(t, "needs PAM's headers (libpam0g-dev)")
	}
	out := filepath.Join(OpenDir(t), "pam_postern.so")
	args := append([]string{out}, flags...)
	if b, err := exec.Command(filepath.Join(ModuleDir(t), "pam/build.sh"), args...).CombinedOutput(); err != nil {
		t.Fatalf("building pam_postern: %v\n%s", err, b)
	}
	return out
}

// OpenDir returns a temporary directory that other users can enter.
func OpenDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Account is a user of a test host.
type Account struct {
	Name     string
	Password string   // empty: none works
	Groups   []string // beyond the one of the same name
	Shell    string   // empty: /bin/bash
	Home     map[string]string
}

// HostConfig describes a test host. Files are absolute paths below /etc, PAM's
// among them; @DIR@ in them stands for the host's directory.
type HostConfig struct {
	Config   string // sshd_config, unless it is among Files
	Accounts []Account
	Files    map[string]string
	LoginLog bool // keep /dev/log: see Host.Syslog
}

// Host is a real sshd in mount, PID and network namespaces of its own, with
// its own /etc, /run and /dev/log. What it does stays inside.
type Host struct {
	Dir     string        // world-readable, the same path inside and outside
	Port    int           // on the namespace's own 127.0.0.1
	HostKey ssh.PublicKey // sshd's
	Key     ssh.Signer    // a client's, authorized for every account
	KeyFile string        // Key, for ssh -i
	Syslog  *net.UnixConn // what is logged inside, if LoginLog
	pid     int           // of sshd, outside
}

// setup runs inside the namespaces: $1 is the host's directory, $2 makes sshd
// log to standard error, $3 is how many accounts there are. The device tunN is
// the account's with that number, from 0.
const setup = `set -eu
cd "$1"
ip link set lo up
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" overlay /etc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/lock dev/pts dev/net dev/shm
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/pts dev/net dev/shm
for f in null zero full random urandom tty; do
	touch dev/$f && mount --bind /dev/$f dev/$f
done
mknod -m 666 dev/net/tun c 10 200
n=0
while [ $n -lt $3 ]; do
	ip tuntap add dev tun$n mode tun user $((20000 + n))
	n=$((n + 1))
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s "$1/syslog" dev/log
mount --rbind dev /dev
exec /usr/sbin/sshd -D -f /etc/ssh/sshd_config -h "$1/host" -p 22 $2
`

// StartHost starts a host and waits until its sshd answers. It needs root.
func StartHost(t testing.TB, cfg HostConfig) *Host {
	t.Helper()
	NeedRoot(t)
	for _, program := range []string{"sshd", "unshare", "nsenter", "ip"} {
		Need(t, program)
	}
	h := &Host{Dir: OpenDir(t), Port: 22}
	h.lay(t, cfg)
	out, err := os.Create(filepath.Join(h.Dir, "sshd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
		"sh", "-c", setup, "sh", h.Dir, map[bool]string{true: "", false: "-e"}[cfg.LoginLog],
		strconv.Itoa(len(cfg.Accounts)))
	cmd.Stdout, cmd.Stderr = out, out
	ended, err := startTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(2 * time.Minute); ; {
		h.pid = childOf(cmd.Process.Pid)
		if c, err := h.Dial("tcp", h.Addr()); err == nil {
			c.Close()
			return h
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("sshd ended:\n%s", h.Log())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("sshd does not answer")
		}
	}
}

func childOf(pid int) int {
	child, _ := strconv.Atoi(children(pid))
	return child
}

// children returns the children of a process, with spaces between them.
func children(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	return strings.TrimSpace(string(b))
}

// lay writes everything the host needs into its directory.
func (h *Host) lay(t testing.TB, cfg HostConfig) {
	t.Helper()
	for _, dir := range []string{"etc", "work", "dev", "home"} {
		if err := os.Mkdir(filepath.Join(h.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.Key, h.KeyFile = NewSSHKey(t, h.Dir, "client")
	hostKey, _ := NewSSHKey(t, h.Dir, "host")
	h.HostKey = hostKey.PublicKey()
	passwd, group, shadow := Read(t, "/etc/passwd"), Read(t, "/etc/group"), Read(t, "/etc/shadow")
	for i, a := range cfg.Accounts {
		id := 20000 + i
		home := filepath.Join(h.Dir, "home", a.Name)
		shell := a.Shell
		if shell == "" {
			shell = "/bin/bash"
		}
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:%s\n", a.Name, id, id, home, shell)
		group += fmt.Sprintf("%s:x:%d:\n", a.Name, id)
		for j, g := range a.Groups {
			group += fmt.Sprintf("%s:x:%d:%s\n", g, 21000+10*i+j, a.Name)
		}
		shadow += fmt.Sprintf("%s:%s:19000:0:99999:7:::\n", a.Name, crypt(t, a.Password))
		files := map[string]string{
			".ssh/authorized_keys": string(ssh.MarshalAuthorizedKey(h.Key.PublicKey())),
			".hushlogin":           "",
		}
		for name, content := range a.Home {
			files[name] = content
		}
		for name, content := range files {
			h.write(t, filepath.Join("home", a.Name, name), content, 0o600)
		}
		err := filepath.Walk(home, func(path string, _ os.FileInfo, err error) error {
			return errors.Join(err, os.Lchown(path, id, id))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, "etc/passwd", passwd, 0o644)
	h.write(t, "etc/group", group, 0o644)
	h.write(t, "etc/shadow", shadow, 0o600)
	for path, content := range cfg.Files {
		mode := os.FileMode(0o644)
		switch {
		case strings.HasPrefix(content, "#!"):
			mode = 0o755
		case strings.Contains(content, "PRIVATE KEY-----"):
			mode = 0o600
		}
		h.write(t, strings.TrimPrefix(path, "/"), strings.ReplaceAll(content, "@DIR@", h.Dir), mode)
	}
	if cfg.Config != "" {
		h.write(t, "etc/ssh/sshd_config", strings.ReplaceAll(cfg.Config, "@DIR@", h.Dir), 0o644)
	}
	if cfg.LoginLog {
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{
			Name: filepath.Join(h.Dir, "syslog"),
			Net:  "unixgram",
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		h.Syslog = conn
	}
}

func (h *Host) write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// crypt hashes a password for /etc/shadow, cheaply.
func crypt(t testing.TB, password string) string {
	t.Helper()
	if password == "" {
		return "*"
	}
	out, err := exec.Command(Need(t, "openssl"), "passwd", "-5", "-salt", "salt", password).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Addr returns where sshd listens, inside.
func (h *Host) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(h.Port)) }

// Log returns what sshd printed so far.
func (h *Host) Log() string {
	b, _ := os.ReadFile(filepath.Join(h.Dir, "sshd.log"))
	return string(b)
}

// Dial connects from inside the host's network.
func (h *Host) Dial(network, addr string) (net.Conn, error) {
	return InNetwork(h.pid, func() (net.Conn, error) { return net.DialTimeout(network, addr, 2*time.Minute) })
}

// Listen listens inside the host's network until the test ends.
func (h *Host) Listen(t testing.TB, network, addr string) net.Listener {
	t.Helper()
	l, err := InNetwork(h.pid, func() (net.Listener, error) { return net.Listen(network, addr) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// InNetwork runs open in the network namespace of a process: a socket stays where
// it was made.
func InNetwork[T any](pid int, open func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ch := make(chan result)
	go func() {
		// The thread that entered the namespace is never used again.
		runtime.LockOSThread()
		var r result
		if r.err = enterNetwork(pid); r.err == nil {
			r.v, r.err = open()
		}
		ch <- r
	}()
	r := <-ch
	return r.v, r.err
}

func enterNetwork(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// Command returns a command that runs inside the host, as root.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(h.pid), "-m", "-n", "-p", "--", name},
		args...)...)
}

// Connect logs in with the Go client. Each round of keyboard-interactive is
// answered by answer; nil offers the public key alone.
func (h *Host) Connect(user string, answer ssh.KeyboardInteractiveChallenge, methods ...ssh.AuthMethod) (*ssh.Client,
	error,
) {
	if methods == nil {
		methods = []ssh.AuthMethod{ssh.PublicKeys(h.Key)}
	}
	if answer != nil {
		methods = append(methods, ssh.KeyboardInteractive(answer))
	}
	conn, err := h.Dial("tcp", h.Addr())
	if err != nil {
		return nil, err
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, h.Addr(), &ssh.ClientConfig{
		User: user, Auth: methods, HostKeyCallback: ssh.FixedHostKey(h.HostKey), Timeout: 20 * time.Second,
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// Answers answers the prompts of keyboard-interactive in order, whatever they
// ask.
func Answers(answers ...string) ssh.KeyboardInteractiveChallenge {
	return func(_, _ string, questions []string, _ []bool) ([]string, error) {
		if len(questions) > len(answers) {
			return nil, errors.New("no answer left")
		}
		mine := answers[:len(questions)]
		answers = answers[len(questions):]
		return mine, nil
	}
}

// Authorize adds a key to an account's authorized_keys, with options (sshd(8)).
func (h *Host) Authorize(t testing.TB, account, options string, key ssh.PublicKey) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(h.Dir, "home", account, ".ssh/authorized_keys"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "%s %s", options, ssh.MarshalAuthorizedKey(key))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Idle waits until no login is served any more.
func (h *Host) Idle(t testing.TB) {
	t.Helper()
	for children(h.pid) != "" {
		select {
		case <-t.Context().Done():
			t.Fatal("logins do not end")
		case <-time.After(time.Millisecond):
		}
	}
}

// Chmod changes the mode of a file in the host's directory.
func (h *Host) Chmod(t testing.TB, name string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(filepath.Join(h.Dir, name), mode); err != nil {
		t.Fatal(err)
	}
}

// Inside returns where a path of the host is for the test.
func (h *Host) Inside(path string) string { return fmt.Sprintf("/proc/%d/root%s", h.pid, path) }

// cleanUp is how long before go test would end everything a test that waits
// fails, so that it cleans up.
const cleanUp = 5 * time.Second

// Pause waits a little before something is looked at again, and fails the test
// when its time is up.
func Pause(t testing.TB) {
	t.Helper()
	if d, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if end, ok := d.Deadline(); ok && time.Until(end) < cleanUp {
			t.Fatal("waited in vain")
		}
	}
	select {
	case <-t.Context().Done():
		t.Fatal("waited in vain")
	case <-time.After(20 * time.Millisecond):
	}
}

// Write writes a file in the host's directory.
func (h *Host) Write(t testing.TB, name, content string) {
	t.Helper()
	h.write(t, name, content, 0o644)
}
