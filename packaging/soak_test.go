package packaging

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

// patience is how long the test waits for what must happen.
const patience = 2 * time.Minute

// TestALifeInChroots builds the packages twice, whole, and compares them; installs the
// server's in a Debian of its own, gives a person a certificate and a code, upgrades it while
// clients ask, backs it up, purges it, and restores the backup in another Debian.
func TestALifeInChroots(t *testing.T) {
	if os.Getenv("POSTERN_SOAK") != "1" {
		t.Skip("make soak runs this: it takes minutes, and a Debian mirror")
	}
	posterntest.NeedRoot(t)
	first := compile(t)
	if a, b := posterntest.Read(t, filepath.Join(first, "SHA256SUMS")), posterntest.Read(t,
		filepath.Join(compile(t), "SHA256SUMS")); a != b {
		t.Errorf("two builds differ:\n%s\n%s", a, b)
	}
	file := one(t, first, "postern_*.deb")
	host := newChroot(t)
	host.install(file)
	s := host.serve()
	host.postern("user", "add", "dan", "--email", "dan@example.com")
	host.postern("ca", "issue", "--client", "dan", "--out", "/tmp/dan")
	host.postern("otp", "token", "new", "/tmp/token")
	writeFile(t, host.path("tmp/keys.csv"), host.postern("otp", "token", "csv", "/tmp/token"))
	host.postern("otp", "import", "/tmp/keys.csv", "--person", "dan")
	code := strings.TrimSpace(host.postern("otp", "token", "touch", "/tmp/token"))
	host.postern("otp", "verify", code)

	underLoad(t, s, func() {
		host.install(newer(t, file))
		s.restart() // as deb-systemd-invoke does where systemd runs
	})
	if !strings.Contains(posterntest.Read(t, host.path("etc/postern/Caddyfile")), "http_port") {
		t.Error("the upgrade has replaced the configuration")
	}
	host.postern("backup", "--to", "/var/backups/postern")
	s.stop()
	host.run("dpkg", "-P", "postern")

	other := newChroot(t)
	other.install(file)
	backup := one(t, host.path("var/backups/postern"), "*.zst")
	output(t, "cp", backup, other.path("tmp/backup"))
	other.run("chown", "postern", "/tmp/backup")
	other.postern("restore", "/tmp/backup")
	if said, err := other.try("otp", "verify", code); err == nil {
		t.Errorf("a code that was used is accepted: %s", said)
	}
	for _, c := range []struct{ args, want string }{
		{"user list", "dan@example.com"},
		{"otp list", "dan"},
		{"ca list", "dan"},
		{"log verify", "all as written"},
		{"log list", "gave a valid one-time code"},
	} {
		if said := other.postern(strings.Fields(c.args)...); !strings.Contains(said, c.want) {
			t.Errorf("%s says %s", c.args, said)
		}
	}
}

// compile builds the packages for this architecture from the source, in a copy of it.
func compile(t *testing.T) string {
	tree := filepath.Join(t.TempDir(), "tree")
	output(t, "git", "-C", "..", "checkout-index", "-a", "--prefix="+tree+"/")
	arch := strings.TrimSpace(output(t, "go", "env", "GOHOSTARCH"))
	cmd := exec.Command(filepath.Join(tree, "packaging/build.sh"), arch)
	cmd.Env = append(os.Environ(), "VERSION=1.0", "COMMIT=0123456789abcdef", "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	return filepath.Join(tree, "bin/packages")
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// chroot is a Debian below a directory.
type chroot struct {
	t   *testing.T
	dir string
}

func newChroot(t *testing.T) *chroot {
	t.Helper()
	c := &chroot{t, filepath.Join(t.TempDir(), "root")}
	output(t, posterntest.Need(t, "debootstrap"), "--variant=minbase", "--include=systemd,init-system-helpers",
		"stable", c.dir)
	output(t, "mount", "-t", "proc", "proc", c.path("proc"))
	t.Cleanup(func() { output(t, "umount", c.path("proc")) })
	return c
}

func (c *chroot) path(name string) string { return filepath.Join(c.dir, name) }

// run runs a command there as root.
func (c *chroot) run(args ...string) string {
	c.t.Helper()
	return output(c.t, "chroot", append([]string{c.dir}, args...)...)
}

// install installs a package by apt, and keeps files that were changed.
func (c *chroot) install(file string) {
	c.t.Helper()
	output(c.t, "cp", file, c.path("tmp/postern.deb"))
	c.run("apt-get", "install", "-qy", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold",
		"/tmp/postern.deb")
}

// asPostern is how the unit runs a command.
var asPostern = []string{
	"setpriv", "--reuid=postern", "--regid=postern", "--init-groups", "--no-new-privs", "env",
	"POSTERN_STATE=/var/lib/postern", "HOME=/var/lib/postern",
}

// try runs a postern command as the server's user.
func (c *chroot) try(args ...string) (string, error) {
	line := append(append([]string{c.dir}, asPostern...), "postern")
	out, err := exec.Command("chroot", append(line, args...)...).CombinedOutput()
	return string(out), err
}

// postern does so, and must succeed.
func (c *chroot) postern(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("postern %v: %v\n%s", args, err, out)
	}
	return out
}

// service is the server, whose socket the test holds as systemd would.
type service struct {
	*chroot
	port   int
	socket *os.File
	cmd    *exec.Cmd
}

// serve gives the configuration another port, and starts the command line of the unit.
func (c *chroot) serve() *service {
	c.t.Helper()
	s := &service{chroot: c, port: posterntest.FreePort(c.t)}
	writeFile(c.t, c.path("etc/postern/Caddyfile"), fmt.Sprintf(
		"{\n\thttps_port %d\n\thttp_port %d\n\tpostern {\n\t\tportal https://localhost:%d\n\t}\n}\n",
		s.port, posterntest.FreePort(c.t), s.port))
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", s.port))
	if err != nil {
		c.t.Fatal(err)
	}
	defer l.Close()
	if s.socket, err = l.(*net.TCPListener).File(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { s.socket.Close() })
	s.start()
	return s
}

func (s *service) start() {
	line := ""
	for text := range strings.Lines(posterntest.Read(s.t, s.path("usr/lib/systemd/system/postern.service"))) {
		if command, ok := strings.CutPrefix(text, "ExecStart="); ok {
			line = strings.TrimSpace(command)
		}
	}
	s.cmd = exec.Command("chroot", append(append([]string{s.dir}, asPostern...), "sh", "-c",
		"LISTEN_FDS=1 LISTEN_PID=$$ exec "+line)...)
	s.cmd.ExtraFiles = []*os.File{s.socket}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.stop)
	for begun := time.Now(); s.get() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > patience {
			s.t.Fatalf("the server does not answer: %v", s.get())
		}
	}
}

func (s *service) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

func (s *service) restart() { s.stop(); s.start() }

// get asks for the portal's first page on a connection of its own.
func (s *service) get() error {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	resp, err := client.Get(fmt.Sprintf("https://localhost:%d/", s.port))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

// underLoad does something while clients ask a server; none of their requests may fail.
func underLoad(t *testing.T, s *service, do func()) {
	t.Helper()
	asking, stop := context.WithCancel(t.Context())
	var answered atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for asking.Err() == nil {
				if err := s.get(); err != nil {
					t.Errorf("after %d requests: %v", answered.Load(), err)
					return
				}
				answered.Add(1)
			}
		})
	}
	do()
	stop()
	clients.Wait()
	t.Logf("%d requests were answered", answered.Load())
}
