// Package system is what this program asks of the operating system beyond the
// standard library, and what differs between systems: who is at the other end of
// a Unix socket, a Unix socket that others cannot connect to, who owns a file,
// and locks on files. What a system lacks fails with postern.Unavailable.
package system

import (
	"os"
	"runtime"

	"github.com/postern-project/postern"
)

// Peer is the process at the other end of a Unix socket, as the kernel knew it
// when the connection was made.
type Peer struct{ PID, UID int }

// NeedsLinux is the error of what only Linux can do.
func NeedsLinux(what string) error {
	return postern.Errorf(postern.Unavailable, "%s needs Linux, and this is %s", what, runtime.GOOS).
		WithHint("run it on the Linux host that it is for")
}

// OnlyLinux fails on another system than Linux, for what only that can do.
func OnlyLinux(what string) error {
	if runtime.GOOS == "linux" {
		return nil
	}
	return NeedsLinux(what)
}

// OnlyRoot fails unless root runs this program on Linux.
func OnlyRoot(what string) error {
	if err := OnlyLinux(what); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return postern.Errorf(postern.Denied, "%s is for root", what).WithHint("run it with sudo")
	}
	return nil
}
