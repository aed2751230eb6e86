package capture

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
	"golang.org/x/sys/unix"
)

// TestDescriptorsSeenByAnotherUser looks at a process's descriptors as a user who
// has been given the capabilities for tracing, and no others, does.
func TestDescriptorsSeenByAnotherUser(t *testing.T) {
	posterntest.NeedRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	cmd := exec.Command("cat")
	cmd.Stdin = r
	sock := os.NewFile(uintptr(pair[0]), "socket")
	defer sock.Close()
	cmd.ExtraFiles = []*os.File{sock}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = w.Close(), cmd.Wait() }()

	type seen struct {
		pipe, sock string
		denied     bool
	}
	done := make(chan seen)
	go func() {
		// Another user's file system rights, on this thread alone, which ends with
		// the goroutine. CAP_SYS_PTRACE stays; what opens files does not.
		runtime.LockOSThread()
		var s seen
		if err := unix.Setfsuid(65534); err == nil {
			_, err := os.Readlink("/proc/1/fd/0")
			s = seen{describeFD(cmd.Process.Pid, 0), "", os.IsPermission(err)}
			if isSocket(cmd.Process.Pid, 3) && !isSocket(cmd.Process.Pid, 0) {
				s.sock = describeFD(cmd.Process.Pid, 3)
			}
		}
		done <- s
	}()
	if s := <-done; !s.denied || s.pipe != "pipe" || s.sock != "socket" {
		t.Errorf("%+v", s)
	}
}
