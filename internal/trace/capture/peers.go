//go:build linux

package capture

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/stack"
	"golang.org/x/sys/unix"
)

// peers finds out who is at the other end of the daemons' connections, what
// file descriptors are, and which virtual machine a monitor belongs to: from the
// events themselves and from the running processes. What it finds is set on the
// events, so that later stages need not read /proc.
type peers struct {
	sockets  map[event.Pointer]socket
	conns    map[event.Pointer]*connection
	sessions map[event.Pointer]uint64 // TLS session to the daemon's client, once known
	monitors map[event.Pointer]string
	watches  map[event.Pointer]string // event loop: watch to what its fd is
	procs    map[int]*process
	offsets  map[int]offsets
	users    map[int]string

	// sockAt is where a virNetServerClient holds its virNetSocket: the
	// displacement in the arguments of rpc_server_client_new.
	sockAt int64
}

type socket struct {
	fd            int
	local, remote string
	peer          *event.Peer // who the kernel says is at the other end, or nil
}

type connection struct {
	peer *event.Peer
	sock uint64
	done bool // the host was asked
}

// process is what is remembered of a process that may be gone by now.
type process struct {
	start   uint64
	uid     int
	session uint32
	command string
}

// offsets are places in a daemon's structures, found by looking.
type offsets struct {
	fd  int64 // of the file descriptor in virNetSocket
	tls int64 // of the TLS session in virNetServerClient; 0 while unknown
}

// fdInSocket is where virNetSocket holds its file descriptor in all builds seen
// (src/rpc/virnetsocket.c: a lockable object, then the descriptor).
const fdInSocket = 64

// Bounds on what is remembered.
const (
	maxObjects   = 1 << 16
	maxProcesses = 1 << 13
)

func newPeers() *peers {
	return &peers{
		sockets: map[event.Pointer]socket{}, conns: map[event.Pointer]*connection{},
		sessions: map[event.Pointer]uint64{},
		monitors: map[event.Pointer]string{}, watches: map[event.Pointer]string{}, procs: map[int]*process{},
		offsets: map[int]offsets{}, users: map[int]string{}, sockAt: -1,
	}
}

// see adds to an event what is known of its client, descriptor and virtual machine.
func (d *peers) see(e *event.Event) {
	at := e.Pointer(0)
	switch k := e.Kind; {
	case k == event.SocketNew:
		event.Bound(d.sockets)
		d.sockets[at] = socket{fd: e.Int(1), local: e.Text(4), remote: e.Text(5), peer: e.Peer}
		d.calibrate(e.PID, e.Arg(0), e.Int(1))
	case k == event.SocketFree:
		delete(d.sockets, at)
	case k == event.ClientNew:
		if d.process(e.PID, true) == nil {
			d.remember(e.PID, &process{uid: -1, command: e.Comm}) // gone already: the kernel recorded its name
		}
		s := d.sockets[e.Pointer(1)]
		d.connect(at, &event.Peer{UID: -1, Local: s.local, Remote: s.remote}).done = true
	case k == event.ServerNew:
		s := d.sockets[e.Pointer(1)]
		c := d.connect(at, &event.Peer{UID: -1, Local: s.local, Remote: s.remote})
		c.sock = e.Arg(1)
		if s.peer != nil {
			c.done = true
			*c.peer = *s.peer
			c.peer.Local, c.peer.Remote = s.local, s.remote
			d.identify(c.peer)
		} else {
			d.resolve(at, c, s.fd)
		}
	case k == event.TLSAllow || k == event.TLSDeny:
		d.tls(e)
	case k == event.AuthAllow:
		d.authenticated(e)
	case k >= event.HandleAdd && k <= event.HandleDispatch:
		d.handle(e)
	case k >= event.MonitorNew && k <= event.MonitorSendFD:
		d.monitor(e)
	case k == event.SocketSendFD || k == event.SocketRecvFD || k == event.MonitorSendFD:
		e.FD = describeFD(e.PID, e.Int(1))
	}
	if e.Client != 0 {
		e.Peer = d.peer(e)
	}
	if e.Kind == event.ClientFree || e.Kind == event.ServerFree {
		delete(d.conns, at)
	}
}

func (d *peers) connect(at event.Pointer, p *event.Peer) *connection {
	event.Bound(d.conns)
	c := &connection{peer: p}
	d.conns[at] = c
	return c
}

// peer returns who is at the other end of the event's connection; of one that is
// older than the tracer, by asking the host.
func (d *peers) peer(e *event.Event) *event.Peer {
	at := e.Connection()
	if c, ok := d.conns[at]; ok {
		p := d.procs[c.peer.PID]
		if p != nil && c.peer.Command == "" && (p.start == 0 || p.start == c.peer.Start) {
			named := *c.peer
			named.Command = p.command
			c.peer = &named
		}
		return c.peer
	}
	c := d.connect(at, &event.Peer{UID: -1})
	if e.Kind.Server() && d.sockAt >= 0 {
		if sock, ok := readWord(e.PID, e.Client+uint64(d.sockAt)); ok {
			c.sock = sock
			if fd, ok := d.socketFD(e.PID, sock); ok {
				d.resolve(at, c, fd)
			}
		}
	}
	return c.peer
}

// resolve asks the daemon's socket who connected. It trusts the answer only
// if the socket still has that descriptor afterwards: closing it sets the
// descriptor to -1.
func (d *peers) resolve(at event.Pointer, c *connection, fd int) {
	if c.done || fd <= 0 {
		return
	}
	c.done = true
	local, err := copyFD(at.PID, fd)
	if err != nil {
		return
	}
	defer unix.Close(local)
	if now, ok := d.socketFD(at.PID, c.sock); !ok || now != fd {
		return
	}
	addr, err := unix.Getsockname(local)
	if err != nil {
		return
	}
	if c.peer.Local == "" {
		c.peer.Local = addressText(addr)
		if remote, err := unix.Getpeername(local); err == nil {
			c.peer.Remote = addressText(remote)
		}
	}
	if _, ok := addr.(*unix.SockaddrUnix); !ok {
		return
	}
	cred, err := unix.GetsockoptUcred(local, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return
	}
	c.peer.PID, c.peer.UID = int(cred.Pid), int(cred.Uid)
	d.identify(c.peer)
}

// identify adds user name, command line and audit session to a Unix client of which
// process and user are known. Its start time, where the kernel has reported it, tells
// it from a later process with the same number.
func (d *peers) identify(peer *event.Peer) {
	peer.User = d.user(peer.UID)
	if p := d.process(peer.PID, true); p != nil && (peer.Start == 0 || peer.Start == p.start) {
		peer.Start, peer.Session, peer.Command = p.start, p.session, p.command
	}
}

// socketFD reads the descriptor in a virNetSocket.
func (d *peers) socketFD(pid int, sock uint64) (int, bool) {
	at := int64(fdInSocket)
	if o := d.offsets[pid]; o.fd != 0 {
		at = o.fd
	}
	var b [4]byte
	if sock == 0 || !stack.ReadMemory(pid, sock+uint64(at), b[:]) {
		return 0, false
	}
	fd := int(int32(binary.LittleEndian.Uint32(b[:])))
	return fd, fd > 0 && isSocket(pid, fd)
}

// calibrate finds where a virNetSocket holds its descriptor from one whose
// descriptor is known.
func (d *peers) calibrate(pid int, sock uint64, fd int) {
	if d.offsets[pid].fd != 0 || fd < 3 {
		return
	}
	var b [256]byte
	if !stack.ReadMemory(pid, sock, b[:]) {
		return
	}
	for _, at := range append([]int{fdInSocket}, counting(16, len(b)-4, 4)...) {
		if int(int32(binary.LittleEndian.Uint32(b[at:]))) == fd {
			event.Bound(d.offsets)
			o := d.offsets[pid]
			o.fd = int64(at)
			d.offsets[pid] = o
			return
		}
	}
}

func counting(from, to, step int) []int {
	var out []int
	for i := from; i <= to; i += step {
		out = append(out, i)
	}
	return out
}

// tls finds the connection of a TLS session: the client that holds its address.
func (d *peers) tls(e *event.Event) {
	if e.Kind == event.TLSAllow && len(e.Strings) > 2 && e.Strings[2] == "" {
		e.Strings[2] = sessionName(e.PID, e.Arg(1)) // the probe of libvirt 12.8 has none
	}
	o := d.offsets[e.PID]
	for at, c := range d.conns {
		if at.PID != e.PID || c.peer.TLSName != "" {
			continue
		}
		if o.tls != 0 {
			if v, ok := readWord(at.PID, at.Addr+uint64(o.tls)); !ok || v != e.Arg(1) {
				continue
			}
		} else if o.tls = findWord(at.PID, at.Addr, e.Arg(1)); o.tls == 0 {
			continue
		}
		d.offsets[e.PID] = o
		e.Client = at.Addr
		if e.Kind == event.TLSAllow {
			p := *c.peer
			p.TLSName = e.Text(2)
			c.peer = &p
		}
		return
	}
}

// sessionName returns the distinguished name that a virNetTLSSession holds of its client
// (x509dname, src/rpc/virnettlscontext.c), or "".
func sessionName(pid int, session uint64) string {
	var b [192]byte
	if !stack.ReadMemory(pid, session, b[:]) {
		return ""
	}
	for i := 0; i < len(b); i += 8 {
		if name := nameAt(pid, binary.LittleEndian.Uint64(b[i:])); name != "" {
			return name
		}
	}
	return ""
}

// maxName is how long a distinguished name is in libvirt, in bytes.
const maxName = 256

// nameAt returns the distinguished name at an address, such as O=Example,CN=alice, or "".
func nameAt(pid int, at uint64) string {
	var b [maxName]byte
	n := 0
	for n < len(b) && at != 0 && stack.ReadMemory(pid, at+uint64(n), b[n:n+1]) && b[n] >= ' ' && b[n] != 0x7f {
		n++
	}
	if n == len(b) || b[n] != 0 {
		return ""
	}
	kind, value, ok := strings.Cut(string(b[:n]), "=")
	if !ok || value == "" || kind == "" || strings.Trim(kind, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return ""
	}
	return string(b[:n])
}

// findWord returns where behind addr a word has the value v, or 0.
func findWord(pid int, addr, v uint64) int64 {
	var b [512]byte
	if !stack.ReadMemory(pid, addr, b[:]) {
		return 0
	}
	for i := 16; i < len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) == v {
			return int64(i)
		}
	}
	return 0
}

func (d *peers) authenticated(e *event.Event) {
	d.peer(e)
	c := d.conns[e.Connection()]
	if name := e.Text(2); name != "" && e.Int(1) == authSASL {
		p := *c.peer
		p.SASLName = name
		c.peer = &p
	}
}

const authSASL = 1 // REMOTE_AUTH_SASL in src/remote/remote_protocol.x

// monitor sets which virtual machine a monitor belongs to: by its socket's
// path, else by the name of the thread that serves it.
func (d *peers) monitor(e *event.Event) {
	at := e.Pointer(0)
	switch e.Kind {
	case event.MonitorNew:
		event.Bound(d.monitors)
		d.monitors[at] = monitorDomain(e.PID, e.Int(1))
	case event.MonitorSendFD:
		e.FD = describeFD(e.PID, e.Int(1))
	case event.MonitorClose:
		defer delete(d.monitors, at)
	}
	if _, known := d.monitors[at]; !known {
		event.Bound(d.monitors)
		d.monitors[at] = olderMonitor(e.PID, e.Arg(0))
	}
	if d.monitors[at] == "" {
		if name, ok := strings.CutPrefix(e.Comm, "vm-"); ok {
			event.Bound(d.monitors)
			d.monitors[at] = name
		}
	}
	e.Domain = d.monitors[at]
}

// monitorDomain returns the domain's name in the path of a monitor's socket,
// …/domain-ID-NAME/monitor.sock.
func monitorDomain(pid, fd int) string {
	local, err := copyFD(pid, fd)
	if err != nil {
		return ""
	}
	defer unix.Close(local)
	addr, err := unix.Getpeername(local)
	if err != nil {
		return ""
	}
	u, ok := addr.(*unix.SockaddrUnix)
	if !ok {
		return ""
	}
	name, ok := strings.CutPrefix(path.Base(path.Dir(u.Name)), "domain-")
	if !ok {
		return ""
	}
	if _, name, ok = strings.Cut(name, "-"); !ok {
		return ""
	}
	return name
}

// olderMonitor returns the domain of a monitor that was there before the tracer:
// among the numbers in the monitor's structure that could be its descriptor, the
// one that is a socket with a domain's path.
func olderMonitor(pid int, mon uint64) string {
	var b [256]byte
	if !stack.ReadMemory(pid, mon, b[:]) {
		return ""
	}
	for i := 16; i+4 <= len(b); i += 4 {
		fd := int(int32(binary.LittleEndian.Uint32(b[i:])))
		if fd < 3 || fd > 1<<16 || !isSocket(pid, fd) {
			continue
		}
		if name := monitorDomain(pid, fd); name != "" {
			return name
		}
	}
	return ""
}

// process returns what is known of a process; fresh makes it look again, in case
// the number was given to another.
func (d *peers) process(pid int, fresh bool) *process {
	if pid <= 0 {
		return nil
	}
	old := d.procs[pid]
	if old != nil && !fresh {
		return old
	}
	start, err := strconv.ParseUint(startTime(pid), 10, 64)
	if err != nil {
		return old // gone: what was seen of it before still holds
	}
	if old != nil && old.start == start {
		return old
	}
	p := &process{start: start, uid: -1}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		p.command = strings.ToValidUTF8(strings.TrimRight(strings.ReplaceAll(string(b[:min(len(b), 4096)]), "\x00",
			" "), " "), "?")
	}
	if p.command == "" {
		p.command = processName(pid) // it has ended and was not waited for yet
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/sessionid", pid)); err == nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32); err == nil {
			p.session = auditSession(uint32(n))
		}
	}
	d.remember(pid, p)
	return p
}

func (d *peers) remember(pid int, p *process) {
	if len(d.procs) >= maxProcesses {
		clear(d.procs)
	}
	d.procs[pid] = p
}

// auditSession returns a process's audit session, or 0 for AUDIT_SID_UNSET.
func auditSession(n uint32) uint32 {
	if n == ^uint32(0) {
		return 0
	}
	return n
}

func (d *peers) user(uid int) string {
	if name, ok := d.users[uid]; ok {
		return name
	}
	name := ""
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	event.Bound(d.users)
	d.users[uid] = name
	return name
}

// forget drops what belongs to processes that are gone.
func (d *peers) forget(gone func(pid int) bool) {
	event.Forget(d.sockets, gone)
	event.Forget(d.conns, gone)
	event.Forget(d.monitors, gone)
	event.Forget(d.watches, gone)
	for pid := range d.procs {
		if gone(pid) {
			delete(d.procs, pid)
			delete(d.offsets, pid)
		}
	}
}
