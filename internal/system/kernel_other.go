//go:build !linux

package system

import (
	"os"
	"os/exec"
	"time"
)

// ClockState fails: it needs Linux.
func ClockState() (synchronized bool, offset time.Duration, err error) {
	return false, 0, NeedsLinux("asking how well the clock is kept")
}

// Monotonic returns 0: events of the kernel come from Linux alone.
func Monotonic() uint64 { return 0 }

// MemoryFile fails: it needs Linux.
func MemoryFile(string) (*os.File, error) { return nil, NeedsLinux("a file in memory") }

// detach does nothing.
func detach(*exec.Cmd) {}

// endGroup does nothing.
func endGroup(*exec.Cmd) {}

// Interrupts are the signals that interrupt a program.
var Interrupts = []os.Signal{os.Interrupt}
