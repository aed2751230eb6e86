package format

import (
	"strings"

	"github.com/postern-project/postern/internal/trace/event"
)

// maxSockets bounds what is remembered of connections; past it the oldest
// knowledge is dropped as a whole.
const maxSockets = 1 << 16

type addresses struct{ local, remote string }

// sockets remembers which addresses a connection has: only the probes of its socket
// have them. The zero value works.
type sockets struct {
	addrs map[event.Pointer]addresses // of a socket
	socks map[event.Pointer]uint64    // of a client: its socket
	conns map[event.Pointer]addresses // of a server's client, whose socket may go first
}

func (s *sockets) track(e *event.Event) {
	switch e.Kind {
	case event.SocketNew:
		if s.addrs == nil || len(s.addrs) >= maxSockets {
			s.addrs = make(map[event.Pointer]addresses)
		}
		n := max(len(e.Args), 6)
		s.addrs[e.Pointer(0)] = addresses{e.Text(n - 2), e.Text(n - 1)}
	case event.ClientNew, event.ServerNew:
		if s.socks == nil || len(s.socks) >= maxSockets {
			s.socks, s.conns = make(map[event.Pointer]uint64), make(map[event.Pointer]addresses)
		}
		at, sock := e.Pointer(0), e.Arg(max(len(e.Args), 2)-1)
		s.socks[at] = sock
		if e.Kind == event.ServerNew {
			s.conns[at] = s.addrs[event.Pointer{PID: e.PID, Addr: sock}]
		}
	}
}

func (s *sockets) untrack(e *event.Event) {
	if !last(e) {
		return
	}
	switch e.Kind {
	case event.SocketFree:
		delete(s.addrs, e.Pointer(0))
	case event.ClientFree, event.ServerFree:
		delete(s.socks, e.Pointer(0))
		delete(s.conns, e.Pointer(0))
	}
}

// of returns the addresses of a connection, by its client's address.
func (s *sockets) of(e *event.Event) addresses {
	at := e.Pointer(0)
	if a, ok := s.conns[at]; ok {
		return a
	}
	return s.addrs[event.Pointer{PID: e.PID, Addr: s.socks[at]}]
}

// last reports whether the event says that a thing is gone. The probes of old
// builds, whose names end in free, fire for each reference that is given up;
// their second argument counts those that were left.
func last(e *event.Event) bool {
	return !strings.HasSuffix(e.Probe, "_free") || len(e.Args) < 2 || e.Arg(1) == 1
}
