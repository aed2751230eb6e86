package server_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
)

// patience is how long a test waits for what must happen, on a machine that may be
// busy with others.
const patience = 2 * time.Minute

// running is a postern run of a test.
type running struct {
	t           *testing.T
	program     string // the command that was built
	cmd         *exec.Cmd
	env         []string
	state       string
	dir         string     // where it is started; "" is here
	sockets     []*os.File // that it gets as from systemd
	https, http int
	out         *printed
	ended       chan error
}

// printed gathers what a program prints.
type printed struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *printed) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *printed) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startRun starts postern run on a state directory and waits until it says
// that it serves.
func startRun(t *testing.T, state string, args ...string) *running {
	t.Helper()
	r := unstarted(t, state)
	r.start(args...)
	return r
}

// unstarted chooses the ports of a postern run that is yet to be started.
func unstarted(t *testing.T, state string) *running {
	t.Helper()
	r := &running{
		t: t, program: posterntest.Program(t), state: state, https: posterntest.FreePort(t),
		http: posterntest.FreePort(t), out: new(printed),
	}
	r.env = append(os.Environ(), "POSTERN_STATE="+state, "HOME="+filepath.Join(t.TempDir(), "home"), "SUDO_USER=")
	return r
}

func (r *running) start(args ...string) {
	r.t.Helper()
	args = append([]string{"run", "--https-port", fmt.Sprint(r.https), "--http-port", fmt.Sprint(r.http)}, args...)
	r.cmd = exec.Command(r.program, args...)
	if len(r.sockets) > 0 { // which say whose they are by the number of the process
		r.cmd = exec.Command("/bin/sh", append([]string{
			"-c", fmt.Sprintf(`LISTEN_FDS=%d LISTEN_PID=$$ exec "$0" "$@"`, len(r.sockets)), r.program,
		}, args...)...)
	}
	r.cmd.Env, r.cmd.Dir, r.cmd.ExtraFiles = r.env, r.dir, r.sockets
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.out
	served := strings.Count(r.out.String(), " serves ")
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	cmd, ended := r.cmd, make(chan error, 1)
	r.ended = ended
	go func() { ended <- cmd.Wait() }()
	r.t.Cleanup(func() { r.stop() })
	r.await(func() bool { return strings.Count(r.out.String(), " serves ") > served })
}

// await waits until something holds.
func (r *running) await(ready func() bool) {
	r.t.Helper()
	for start := time.Now(); !ready(); time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-r.ended:
			r.ended <- err
			r.t.Fatalf("postern run ended: %v\n%s", err, r.out)
		default:
		}
		if time.Since(start) > patience {
			r.t.Fatalf("still waiting\n%s", r.out)
		}
	}
}

// stop asks the server to stop, and returns how it ended.
func (r *running) stop() error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(patience):
		_ = r.cmd.Process.Kill()
		r.t.Errorf("postern run does not stop\n%s", r.out)
		return <-r.ended
	}
}

// postern runs another command on the same state.
func (r *running) postern(args ...string) (string, error) {
	cmd := exec.Command(r.program, args...)
	cmd.Env = r.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// curl runs the real curl and returns the body and the status.
func (r *running) curl(args ...string) string {
	r.t.Helper()
	args = append([]string{
		"-sS", "--retry", "40", "--retry-delay", "0", "--retry-all-errors", "--retry-max-time",
		"10", "-w", "\n%{http_code}", "--cacert", filepath.Join(r.state, "root.pem"),
	}, args...)
	out, err := exec.Command(posterntest.Need(r.t, "curl"), args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("curl %v: %v\n%s\n%s", args, err, out, r.out)
	}
	return string(out)
}

func (r *running) url(path string) string {
	return fmt.Sprintf("https://localhost:%d%s", r.https, path)
}

// me returns curl's flags for the first person's certificate.
func (r *running) me() []string {
	r.t.Helper()
	certs, err := filepath.Glob(filepath.Join(r.state, "first/*.crt"))
	if err != nil || len(certs) != 1 {
		r.t.Fatal(certs, err)
	}
	return []string{"--cert", certs[0], "--key", strings.TrimSuffix(certs[0], ".crt") + ".key"}
}
