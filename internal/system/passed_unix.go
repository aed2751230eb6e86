//go:build unix

package system

import "syscall"

// passedFD returns the number of a passed socket, which is no child's.
func passedFD(i int) uintptr {
	syscall.CloseOnExec(3 + i)
	return uintptr(3 + i)
}
