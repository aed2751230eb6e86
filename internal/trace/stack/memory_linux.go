package stack

import "golang.org/x/sys/unix"

// ReadMemory copies memory of a running process, which is not stopped for it. It
// reports whether all of b could be read.
func ReadMemory(pid int, addr uint64, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: len(b)}}, 0)
	return err == nil && n == len(b)
}
