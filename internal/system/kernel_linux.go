package system

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ClockState asks the kernel how well its clock is kept (adjtimex(2)): whether
// something keeps it right, and how far off it may be at most.
func ClockState() (synchronized bool, offset time.Duration, err error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, 0, err
	}
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, time.Duration(t.Esterror) * time.Microsecond, nil
}

// Monotonic returns nanoseconds of CLOCK_MONOTONIC, which events of the kernel
// carry; 0 where it cannot be read.
func Monotonic() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// MemoryFile makes a file without a name, which only this process has.
func MemoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// detach has a command, before it starts, outlive this process and its terminal.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// endGroup runs the command in a process group of its own, which is killed as a whole.
func endGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// Interrupts are the signals of a terminal that hang up, quit or stop a program.
var Interrupts = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGTSTP}
