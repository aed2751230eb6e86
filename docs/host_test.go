package docs_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

func TestMain(m *testing.M) { os.Exit(posterntest.Run(m)) }

// host is a fresh Debian: mount, PID and network namespaces with an /etc, /home,
// /run and state of their own, postern and pam_postern installed, and an account
// alice with an SSH key. What is done there stays there.
type host struct {
	t    testing.TB
	dir  string
	pid  int // of the namespaces' first process
	root *shell
	you  *shell // alice's
	more map[string]*shell
	// hosts are others on the same network.
	hosts map[string]*host
	// recordings are what blocks with a recording's name showed so far.
	recordings map[string][]scene
}

// command runs a program of the test's own side.
func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(posterntest.Need(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// fresh runs inside the namespaces. $1 is the host's directory, $2 postern, $3 pam_postern.
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

// newHost starts a host, which ends with the test.
func newHost(t testing.TB) *host {
	t.Helper()
	posterntest.NeedRoot(t)
	for _, p := range []string{"unshare", "nsenter", "ip", "setpriv", "useradd"} {
		posterntest.Need(t, p)
	}
	h := &host{
		t: t, dir: posterntest.OpenDir(t), more: map[string]*shell{}, hosts: map[string]*host{},
		recordings: map[string][]scene{},
	}
	if err := errors.Join(os.Mkdir(filepath.Join(h.dir, "t"), 0o755),
		os.Mkdir(filepath.Join(h.dir, "dev"), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--uts", "--net", "--pid", "--fork",
		"--kill-child", "--mount-proc",
		"sh", "-c", fresh, "sh", h.dir, posterntest.Program(t), posterntest.PAMModule(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	started := make(chan error)
	go func() { // Pdeathsig follows the thread that started the command
		runtime.LockOSThread()
		started <- cmd.Start()
		<-done
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		close(done)
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the host does not start: %q %v", line, err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(children), &h.pid); err != nil {
		t.Fatal(err)
	}
	h.root, h.you = h.shell("root"), h.shell("alice")
	return h
}

// shell opens a shell on the host that keeps its directory and variables from one
// command to the next.
func (h *host) shell(account string) *shell {
	h.t.Helper()
	home := map[string]string{"root": "/root"}[account]
	if home == "" {
		home = "/home/" + account
	}
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(h.pid), "-m", "-u", "-n", "-p", "--",
		"setpriv", "--reuid="+account, "--regid="+account, "--init-groups",
		"env", "-i", "HOME="+home, "USER="+account, "LANG=C.UTF-8",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"bash", "--noprofile", "--norc", "-c", "cd; exec bash --noprofile --norc")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		h.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	w.Close()
	s := &shell{t: h.t, in: in, lines: make(chan string, 10000)}
	go s.read(r)
	h.t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		r.Close()
	})
	return s
}

// patience is how long one command, or a terminal's first words, may take: a
// limit for what hangs, not a measure.
const patience = 5 * time.Minute

// shell is a running shell.
type shell struct {
	t     testing.TB
	in    io.WriteCloser
	lines chan string // what it prints, with the ends of lines
	begun step        // what start started
	seen  strings.Builder
}

func (s *shell) read(r io.Reader) {
	defer close(s.lines)
	for b := bufio.NewReader(r); ; {
		line, err := b.ReadString('\n')
		if line = strings.TrimSuffix(line, "\r\n"); line != "" && err == nil && !strings.HasSuffix(line, "\n") {
			line += "\n" // ssh writes for a terminal
		}
		if line != "" {
			s.lines <- line
		}
		if err != nil {
			return
		}
	}
}

const ended = "\x1eended "

// run runs a command and returns what it printed, and its exit code.
func (s *shell) run(command string) (string, int) {
	s.t.Helper()
	s.send("{ " + command + "\n} </dev/null; printf '\\n\\036ended %d\\n' $?")
	var out strings.Builder
	for deadline := time.After(patience); ; {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("the shell is gone after %s\n%s", command, out.String())
			}
			if code, found := strings.CutPrefix(line, ended); found {
				var n int
				if _, err := fmt.Sscan(code, &n); err != nil {
					s.t.Fatal(err)
				}
				return strings.TrimSuffix(strings.TrimSuffix(out.String(), "\n"), "\n"), n
			}
			out.WriteString(line)
		case <-deadline:
			s.t.Fatalf("no end of: %s\n%s", command, out.String())
		}
	}
}

// start runs a command that goes on, and waits until it has printed what is shown.
func (s *shell) start(command string, shown []string) {
	s.t.Helper()
	s.send("exec " + command)
	for deadline := time.After(patience); ; {
		if len(shown) > 0 && matches(slices.Concat([]string{"…"}, shown, []string{"…"}), plain(s.seen.String())) {
			return
		}
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s ends:\n%s", command, s.seen.String())
			}
			s.seen.WriteString(line)
		case <-deadline:
			s.t.Fatalf("%s does not say\n%s\nbut\n%s", command, strings.Join(shown, "\n"), s.seen.String())
		}
	}
}

// rest returns all that the started command has printed by now.
func (s *shell) rest() string {
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				return s.seen.String()
			}
			s.seen.WriteString(line)
		default:
			return s.seen.String()
		}
	}
}

func (s *shell) send(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, text+"\n"); err != nil {
		s.t.Fatal(err)
	}
}
