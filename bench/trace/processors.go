package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// What a call costs differs twofold with the processors on which its threads
// happen to meet: to wake a thread elsewhere takes an interrupt, and a processor
// that sleeps takes longer still, the most in a virtual machine. So the client has
// a processor, and the daemon another; tracers have all; and none sleeps.

// processors returns what this process may run on.
func processors() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("which processors there are: %w", err)
	}
	var list []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			list = append(list, cpu)
		}
	}
	return list, nil
}

// pin lets all threads of a process, and those that they start, run on these
// processors only.
func pin(pid int, cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("choose the processors of %d: %w", pid, err)
		}
	}
	return nil
}

// keepAwake gives each processor something to do that gives way to everything
// else, until stop.
func keepAwake(cpus []int) (stop func(), err error) {
	var spinning []*exec.Cmd
	stop = func() {
		for _, c := range spinning {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	// The kernel ends them with the thread that started them.
	runtime.LockOSThread()
	for _, cpu := range cpus {
		c := exec.Command("chrt", "--idle", "0", "sh", "-c", "while :; do :; done")
		c.Stderr = os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			stop()
			return nil, fmt.Errorf("keep processors awake: %w", err)
		}
		spinning = append(spinning, c)
		if err := pin(c.Process.Pid, cpu); err != nil {
			stop()
			return nil, err
		}
	}
	return stop, nil
}
