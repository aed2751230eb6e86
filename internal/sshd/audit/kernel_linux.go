package audit

import (
	"os"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/sys/unix"
)

// kernelClock asks the kernel how well its clock is kept.
func kernelClock() Clock {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}
	}
	return Clock{
		Synchronized: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		Offset:       time.Duration(t.Esterror) * time.Microsecond,
	}
}

// memoryFile makes a file without a name, which only this process has.
func memoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, postern.Errorf(postern.Unavailable, "memfd: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
