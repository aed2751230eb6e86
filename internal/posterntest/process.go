package posterntest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Serve starts a server in the foreground and waits until the TCP port on
// 127.0.0.1 is open; see [Start].
func Serve(t testing.TB, port int, program string, args ...string) {
	t.Helper()
	Start(t, exec.Command(Need(t, program), args...), func() bool {
		return answers("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	})
}

// Start starts a peer and waits until it is ready, at most two minutes. When the
// test ends the peer gets a signal to stop, and is killed if it does not within 10, with
// whatever children it left.
func Start(t testing.TB, cmd *exec.Cmd, ready func() bool) {
	t.Helper()
	if cmd.Stdout == nil {
		out, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ended, err := startTied(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			ended <- err
		case <-time.After(10 * time.Second):
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	for start := time.Now(); !ready(); {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", cmd.Path, err, output(cmd))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Since(start) > 2*time.Minute {
			t.Fatalf("%s does not answer\n%s", cmd.Path, output(cmd))
		}
	}
}

// startTied starts a command that is killed when the test process ends, and returns
// where its end is sent. The thread that starts it waits for it: the kernel kills it when
// that thread ends (PR_SET_PDEATHSIG in prctl(2)), as those do that entered a namespace.
func startTied(cmd *exec.Cmd) (ended chan error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	ended = make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if started <- err; err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// answers reports whether a process listens.
func answers(network, address string) bool {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func output(cmd *exec.Cmd) []byte {
	f, ok := cmd.Stdout.(*os.File)
	if !ok {
		return nil
	}
	b, _ := os.ReadFile(f.Name())
	return b
}
