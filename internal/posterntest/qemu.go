package posterntest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// killMachines ends the virtual machines, which outlive the daemon.
func (l *Libvirtd) killMachines() {
	pids, _ := filepath.Glob(filepath.Join(l.Dir, "run/qemu/*.pid"))
	for _, file := range pids {
		b, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && l.isMachine(pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// isMachine reports whether a process is a virtual machine of this daemon: the one of the
// file may have ended, and its number may be that of another now.
func (l *Libvirtd) isMachine(pid int) bool {
	name, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	mounts, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	return err1 == nil && err2 == nil && bytes.HasPrefix(name, []byte("qemu-system")) &&
		bytes.Contains(mounts, []byte(filepath.Base(l.Dir)+"/"))
}
