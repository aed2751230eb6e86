package system

import (
	"os"
	"strconv"
	"strings"
	"sync"
)

// PassedSocket is a socket that systemd opened for this process, with the name that its
// unit gives it (FileDescriptorName= in systemd.socket(5)).
type PassedSocket struct {
	Name string
	File *os.File // must not be closed: a restart or a reload listens on it again
}

// PassedSockets returns the sockets that systemd passed to this process, as in
// sd_listen_fds(3). Programs that this one starts do not inherit them. It may be called
// from several goroutines.
var PassedSockets = sync.OnceValue(func() (all []PassedSocket) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		s := PassedSocket{Name: "unknown"}
		if i < len(names) {
			s.Name = names[i]
		}
		s.File = os.NewFile(passedFD(i), s.Name)
		all = append(all, s)
	}
	return all
})
