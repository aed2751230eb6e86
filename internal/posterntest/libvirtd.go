package posterntest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Libvirtd is a real libvirtd with its QEMU driver, in a mount namespace of its
// own: nothing of the host's libvirt is touched. It listens on a Unix socket,
// on TCP without authentication and on TLS with client certificates. A domain
// vm1 (TCG, no disk) is defined.
type Libvirtd struct {
	Dir     string
	PID     int
	Port    int
	TLSPort int
	Env     []string // more of the daemon's environment, from the next Start on
	modular string   // the directory of modular daemons that run in libvirtd's place, or ""
	inside  int      // the process in whose namespaces the daemon runs, or 0
	cmd     *exec.Cmd
	bus     *exec.Cmd
	done    chan struct{}
	release func() // of TraceAlone
}

// The shared daemon of a test process.
var (
	sharedMu       sync.Mutex
	sharedLibvirtd *Libvirtd
)

// SharedLibvirtd returns the test process's one libvirtd, started at the first
// call. A package that uses it calls StopLibvirtd from its TestMain.
func SharedLibvirtd(t testing.TB) *Libvirtd {
	t.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedLibvirtd == nil {
		sharedLibvirtd = StartLibvirtd(t)
	}
	return sharedLibvirtd
}

// StopLibvirtd stops the shared daemon, if there is one.
func StopLibvirtd() {
	sharedMu.Lock()
	defer sharedMu.Unlock()
	if sharedLibvirtd != nil {
		sharedLibvirtd.Stop()
		sharedLibvirtd = nil
	}
}

// StartLibvirtd starts a daemon, which the caller stops. Until then no other
// test process traces, which would see this one's clients.
func StartLibvirtd(t testing.TB) *Libvirtd {
	t.Helper()
	return startLibvirtd(t, &Libvirtd{})
}

// StartLibvirtdInside starts a daemon in the mount, UTS, network and PID
// namespaces of a process, which knows the accounts of /etc/passwd there. The
// daemon and its virtual machines end with that PID namespace.
func StartLibvirtdInside(t testing.TB, pid int) *Libvirtd {
	t.Helper()
	return startLibvirtd(t, &Libvirtd{inside: pid})
}

func startLibvirtd(t testing.TB, l *Libvirtd) *Libvirtd {
	t.Helper()
	NeedRoot(t)
	for _, program := range []string{"libvirtd", "virsh", "dbus-daemon", "unshare", "nsenter", "qemu-system-x86_64"} {
		Need(t, program)
	}
	release := TraceAlone(t)
	l.Port, l.TLSPort = FreePort(t), FreePort(t)
	if err := l.run(); err != nil {
		release()
		t.Fatal(err)
	}
	l.release = release
	return l
}

// RunLibvirtd starts a daemon outside a test, on these ports.
func RunLibvirtd(port, tlsPort int) (*Libvirtd, error) {
	l := &Libvirtd{Port: port, TLSPort: tlsPort}
	return l, l.run()
}

func (l *Libvirtd) run() (err error) {
	if l.Dir, err = os.MkdirTemp("", "postern-libvirtd-"); err != nil {
		return err
	}
	if err := errors.Join(l.prepare(), l.Start()); err != nil {
		l.Stop()
		return err
	}
	if out, err := l.Virsh("define", filepath.Join(l.Dir, "conf/vm1.xml")); err != nil {
		l.Stop()
		return fmt.Errorf("define vm1: %w: %s", err, out)
	}
	return nil
}

const libvirtdConf = `listen_tls = 1
listen_tcp = 1
tcp_port = "%[2]d"
tls_port = "%[3]d"
listen_addr = "127.0.0.1"
auth_tcp = "none"
auth_tls = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0777"
unix_sock_dir = "/run/libvirt"
key_file = "%[1]s/pki/serverkey.pem"
cert_file = "%[1]s/pki/servercert.pem"
ca_file = "%[1]s/pki/cacert.pem"
max_clients = 400
max_anonymous_clients = 400
max_workers = 20
max_client_requests = 20
log_level = 3
log_outputs = "3:file:%[1]s/libvirtd.log"
`

const qemuConf = `user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
`

const domainXML = `<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>%s</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='virtio'><stats period='0'/></memballoon>
  </devices>
</domain>
`

// DomainXML describes a small virtual machine of that name.
func (l *Libvirtd) DomainXML(name string) string {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		qemu = "/usr/bin/qemu-system-x86_64"
	}
	return fmt.Sprintf(domainXML, name, qemu)
}

func (l *Libvirtd) prepare() error {
	for _, d := range []string{"etc/qemu/networks", "run", "lib/qemu", "log/qemu", "conf", "pki"} {
		if err := os.MkdirAll(filepath.Join(l.Dir, d), 0o755); err != nil {
			return err
		}
	}
	// A client of another user must reach the socket.
	if err := os.Chmod(l.Dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(l.cacheDir(), 0o755); err != nil {
		return err
	}
	files := map[string]string{
		"conf/libvirtd.conf":  fmt.Sprintf(libvirtdConf, l.Dir, l.Port, l.TLSPort),
		"conf/virtqemud.conf": fmt.Sprintf(virtqemudConf, l.Dir),
		"etc/qemu.conf":       qemuConf,
		"conf/vm1.xml":        l.DomainXML("vm1"),
	}
	// It knows the first account of a test host, see Host, as one of its own.
	accounts := map[string]string{
		"passwd": "postern-test:x:20000:20000::/:/bin/sh\n",
		"group":  "postern-test:x:20000:\n",
	}
	if l.inside != 0 {
		accounts = nil
		if err := os.CopyFS(l.cache(), os.DirFS(l.cacheDir())); err != nil {
			return err
		}
	}
	for file, line := range accounts {
		own, err := os.ReadFile("/etc/" + file)
		if err != nil {
			return err
		}
		files["conf/"+file] = string(own) + line
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(l.Dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return l.certificates()
}

// release is the root directory of another Debian release, whose libvirtd and QEMU run in
// the place of this host's; "" for none. make soak sets it.
func release() string { return os.Getenv("POSTERN_LIBVIRT_ROOT") }

// cacheDir keeps what libvirtd learns of QEMU: asking anew takes it 8 seconds. Another
// program does not trust what it finds there.
func (l *Libvirtd) cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "postern-test-libvirt", filepath.Base(release()), filepath.Base(l.modular))
}

// cache is where the daemon finds that: a copy, where the first is out of sight.
func (l *Libvirtd) cache() string {
	if l.inside != 0 {
		return filepath.Join(l.Dir, "cache")
	}
	return l.cacheDir()
}

// alone is this process's hold on the lock of TraceAlone.
var alone struct {
	mu    sync.Mutex
	holds int
	lock  net.Listener
}

// TraceAlone keeps other test processes from tracing, and from being traced,
// until the returned function is called: a trace sees the whole host. A process
// that holds it already has it at once.
func TraceAlone(t testing.TB) (release func()) {
	t.Helper()
	alone.mu.Lock()
	defer alone.mu.Unlock()
	if alone.holds == 0 {
		for alone.lock == nil {
			l, err := net.Listen("unix", "@postern-trace") // a name that ends with its process
			switch {
			case err == nil:
				alone.lock = l
			case errors.Is(err, syscall.EADDRINUSE):
				time.Sleep(50 * time.Millisecond)
			default:
				t.Fatal(err)
			}
		}
	}
	alone.holds++
	return func() {
		alone.mu.Lock()
		defer alone.mu.Unlock()
		if alone.holds--; alone.holds == 0 {
			alone.lock.Close()
			alone.lock = nil
		}
	}
}

// Start starts the daemon, also again after Kill.
func (l *Libvirtd) Start() error {
	if l.bus == nil {
		l.bus = exec.Command("dbus-daemon", "--session", "--nofork", "--nopidfile",
			"--address=unix:path="+filepath.Join(l.Dir, "bus"))
		if err := l.bus.Start(); err != nil {
			return err
		}
	}
	daemon, err := exec.LookPath("libvirtd")
	if err != nil {
		daemon = "/usr/sbin/libvirtd"
	}
	log, err := os.Create(filepath.Join(l.Dir, "libvirtd.out"))
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"unshare", "-m", "--propagation", "private", "sh", "-c", `
		mkdir -p /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/libvirt
		mount --bind "$D/etc" /etc/libvirt && mount --bind "$D/run" /run/libvirt &&
		mount --bind "$D/lib" /var/lib/libvirt && mount --bind "$CACHE" /var/cache/libvirt &&
		mount --bind "$D/log" /var/log/libvirt || exit 1
		[ ! -e "$D/conf/passwd" ] ||
			{ mount --bind "$D/conf/passwd" /etc/passwd && mount --bind "$D/conf/group" /etc/group; } || exit 1
		[ -z "$RELEASE" ] || mount --bind "$RELEASE/usr" /usr || exit 1
		[ -z "$MODULAR" ] || {
			"$MODULAR/virtqemud" -f "$D/conf/virtqemud.conf" -p "$D/virtqemud.pid" &
			exec "$MODULAR/virtproxyd" -f "$D/conf/libvirtd.conf" -p "$D/libvirtd.pid"
		}
		exec "$DAEMON" -f "$D/conf/libvirtd.conf" -l -p "$D/libvirtd.pid"`}
	if l.inside != 0 {
		args = append([]string{"nsenter", "-t", strconv.Itoa(l.inside), "-m", "-u", "-n", "-p", "--"}, args...)
	}
	l.cmd = exec.Command(args[0], args[1:]...)
	l.cmd.Env = append(os.Environ(), "D="+l.Dir, "CACHE="+l.cache(), "DAEMON="+daemon, "RELEASE="+release(),
		"MODULAR="+l.modular,
		"DBUS_SYSTEM_BUS_ADDRESS=unix:path="+filepath.Join(l.Dir, "bus"))
	l.cmd.Env = append(l.cmd.Env, l.Env...)
	l.cmd.Stdout, l.cmd.Stderr = log, log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := l.cmd.Start(); err != nil {
		return err
	}
	l.PID = l.cmd.Process.Pid
	l.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(l.cmd, l.done)
	return l.await()
}

// await returns when the daemon answers.
func (l *Libvirtd) await() error {
	deadline := time.Now().Add(2 * time.Minute)
	for time.Now().Before(deadline) {
		select {
		case <-l.done:
			out, _ := os.ReadFile(filepath.Join(l.Dir, "libvirtd.out"))
			log, _ := os.ReadFile(filepath.Join(l.Dir, "libvirtd.log"))
			out = append(out, log...)
			return fmt.Errorf("libvirtd ended: %s", out)
		default:
		}
		if c, err := net.Dial("unix", l.Socket()); err == nil {
			c.Close()
			if _, err := l.Virsh("version"); err == nil {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("libvirtd does not answer")
}

// Socket is the path of the daemon's Unix socket.
func (l *Libvirtd) Socket() string { return filepath.Join(l.Dir, "run/libvirt-sock") }

// UnixURI names the daemon to a client over its Unix socket.
func (l *Libvirtd) UnixURI() string { return "qemu+unix:///system?socket=" + l.Socket() }

// TCPURI names the daemon to a client over TCP, without authentication.
func (l *Libvirtd) TCPURI() string { return fmt.Sprintf("qemu+tcp://127.0.0.1:%d/system", l.Port) }

// TLSURI names the daemon to a client over TLS.
func (l *Libvirtd) TLSURI() string {
	return fmt.Sprintf("qemu+tls://localhost:%d/system?pkipath=%s/pki", l.TLSPort, l.Dir)
}

// Virsh runs virsh over the Unix socket.
func (l *Libvirtd) Virsh(args ...string) (string, error) { return VirshAt(l.UnixURI(), args...) }

// VirshAt runs virsh over another URI of the daemon's.
func VirshAt(uri string, args ...string) (string, error) {
	out, err := exec.Command("virsh", append([]string{"-q", "-c", uri}, args...)...).CombinedOutput()
	return string(out), err
}

// Virsh runs virsh on a URI, which must succeed, and returns what it prints.
func Virsh(t testing.TB, uri string, args ...string) string {
	t.Helper()
	out, err := VirshAt(uri, args...)
	if err != nil {
		t.Fatalf("virsh %v: %v: %s", args, err, out)
	}
	return out
}

// Kill kills the daemon; its virtual machines live on, and Start finds them.
func (l *Libvirtd) Kill() {
	if l.cmd == nil || l.cmd.Process == nil {
		return
	}
	l.signal(syscall.SIGKILL)
	<-l.done
}

// signal signals the daemon. Inside a PID namespace it is a child of nsenter, in
// its process group, and of modular daemons there are two.
func (l *Libvirtd) signal(sig syscall.Signal) {
	target := l.PID
	if l.inside != 0 || l.modular != "" {
		target = -l.PID
	}
	_ = syscall.Kill(target, sig)
}

// Stop stops the daemon, its virtual machines and its bus, and removes its
// files.
func (l *Libvirtd) Stop() {
	if l.cmd != nil && l.cmd.Process != nil {
		l.signal(syscall.SIGTERM)
		select {
		case <-l.done:
		case <-time.After(10 * time.Second):
			l.Kill()
		}
	}
	if l.inside == 0 {
		l.killMachines()
	}
	if l.bus != nil && l.bus.Process != nil {
		_ = l.bus.Process.Kill()
		_ = l.bus.Wait()
	}
	_ = os.RemoveAll(l.Dir)
	if l.release != nil {
		l.release()
		l.release = nil
	}
}
