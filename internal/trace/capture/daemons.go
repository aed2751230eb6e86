//go:build linux

package capture

import (
	"cmp"
	"encoding/binary"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// Daemon is a process that serves libvirt's RPC protocol.
type Daemon struct {
	PID    int
	Name   string // of its program: libvirtd, virtqemud
	sockAt int64  // see peers.sockAt
}

// Daemons returns the daemons among the processes that have files of libvirt's mapped.
func Daemons(libs []*Library) []Daemon {
	var found []Daemon
	for _, l := range libs {
		name := strings.TrimSuffix(path.Base(l.Path), " (deleted)")
		if !slices.Contains(daemons, name) {
			continue
		}
		for _, pid := range l.PIDs {
			found = append(found, Daemon{PID: pid, Name: name, sockAt: sockAtOf(libs, pid)})
		}
	}
	slices.SortFunc(found, func(a, b Daemon) int { return cmp.Compare(a.PID, b.PID) })
	return slices.CompactFunc(found, func(a, b Daemon) bool { return a.PID == b.PID })
}

// sockAtOf returns where a process's clients hold their sockets, or -1.
func sockAtOf(libs []*Library, pid int) int64 {
	for _, l := range libs {
		for _, p := range l.Probes {
			if event.KindOf(p.Name) != event.ServerNew || !slices.Contains(l.PIDs, pid) {
				continue
			}
			if at, ok := sockAt(p); ok {
				return at
			}
		}
	}
	return -1
}

// sockAt takes from the arguments of rpc_server_client_new, client and a word in it,
// where a client holds its socket.
func sockAt(p usdt.Probe) (int64, bool) {
	if len(p.Args) < 2 {
		return 0, false
	}
	client, sock := p.Args[0], p.Args[len(p.Args)-1]
	return sock.Disp, client.Mode == usdt.Reg && sock.Mode == usdt.Mem && sock.Reg == client.Reg &&
		sock.Index == usdt.NoReg
}

// Inspector finds out who clients of daemons are, by looking at running processes. Not safe for
// concurrent use.
type Inspector struct{ peers *peers }

// NewInspector returns an Inspector that has looked at nothing yet.
func NewInspector() *Inspector { return &Inspector{newPeers()} }

// Process describes a local client, by its process and user.
func (i *Inspector) Process(pid, uid int) *event.Peer {
	p := &event.Peer{PID: pid, UID: uid}
	i.peers.identify(p)
	return p
}

// Client returns who is at the other end of a connection of the daemon's, if there is
// a virNetServerClient with an open socket at that address. Before the socket stands the
// number that the daemon gave the connection (src/rpc/virnetserverclient.c).
func (i *Inspector) Client(d Daemon, client uint64) (p *event.Peer, id uint64, ok bool) {
	const before = 16 // the number, and when it connected
	var b [before + 8]byte
	if d.sockAt < before || !stack.ReadMemory(d.PID, client+uint64(d.sockAt)-before, b[:]) {
		return nil, 0, false
	}
	id, sock := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[before:])
	fd, ok := i.peers.socketFD(d.PID, sock)
	if !ok {
		return nil, 0, false
	}
	c := &connection{peer: &event.Peer{UID: -1}, sock: sock}
	i.peers.resolve(event.Pointer{PID: d.PID, Addr: client}, c, fd)
	return c.peer, id, c.peer.Local != "" || c.peer.PID != 0
}

// MonitorDomain returns the name of the virtual machine whose monitor stands at that
// address in a daemon, or "".
func MonitorDomain(pid int, mon uint64) string { return olderMonitor(pid, mon) }

// Threads returns the threads of a process, and their names.
func Threads(pid int) map[int]string {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	names, _ := readNames(dir) // of a process that has ended there are none
	threads := map[int]string{}
	for _, name := range names {
		if tid, err := strconv.Atoi(name); err == nil {
			comm, _ := os.ReadFile(dir + name + "/comm")
			threads[tid] = strings.TrimSpace(string(comm))
		}
	}
	return threads
}
