// Package event holds what one probe saw, as plain data: the capture fills it,
// the decoders, joins and output formats read it. It knows no eBPF and no
// libvirt tables.
package event

import (
	"strings"
	"time"
)

// Kind is the kind of an event. It follows from the probe's name: old and new names
// of one probe share a kind.
type Kind uint8

// The kinds. The comments give the probe.
const (
	Unknown Kind = iota

	ClientTx // rpc_client_msg_tx_queue: a client queues a message
	ClientRx // rpc_client_msg_rx: a client has read one
	ServerRx // rpc_server_client_msg_rx
	ServerTx // rpc_server_client_msg_tx_queue

	ClientNew    // rpc_client_new (client, sock)
	ClientFree   // rpc_client_dispose, rpc_client_free (client)
	ServerNew    // rpc_server_client_new (client, sock)
	ServerFree   // rpc_server_client_dispose, …_free (client)
	SocketNew    // rpc_socket_new (sock, fd, errfd, pid, local, remote); older builds put refs after sock
	SocketFree   // rpc_socket_dispose, rpc_socket_free
	SocketSendFD // rpc_socket_send_fd (sock, fd)
	SocketRecvFD // rpc_socket_recv_fd (sock, fd)

	AuthAllow // rpc_server_client_auth_allow (client, authtype, identity)
	AuthDeny  // rpc_server_client_auth_deny (client, authtype, identity)
	AuthFail  // rpc_server_client_auth_fail (client, authtype)

	TLSContextNew    // rpc_tls_context_new (ctxt, cacert, cacrl, cert, key, sanity, require, isServer)
	TLSContextFree   // rpc_tls_context_dispose
	TLSAllow         // rpc_tls_context_session_allow (ctxt, sess, dname)
	TLSDeny          // rpc_tls_context_session_deny (ctxt, sess, dname)
	TLSFail          // rpc_tls_context_session_fail (ctxt, sess)
	TLSNew           // rpc_tls_session_new (sess, ctxt, hostname, isServer)
	TLSFree          // rpc_tls_session_dispose
	TLSHandshakePass // rpc_tls_session_handshake_pass (sess)
	TLSHandshakeFail // rpc_tls_session_handshake_fail (sess)

	KeepaliveNew     // rpc_keepalive_new (ka, client)
	KeepaliveFree    // rpc_keepalive_dispose
	KeepaliveStart   // rpc_keepalive_start (ka, client, interval, count)
	KeepaliveStop    // rpc_keepalive_stop (ka, client)
	KeepaliveSend    // rpc_keepalive_send (ka, client, prog, vers, proc)
	KeepaliveRecv    // rpc_keepalive_received (ka, client, prog, vers, proc)
	KeepaliveTimeout // rpc_keepalive_timeout (ka, client, countToDeath, idle)

	HandleAdd       // event_{glib,poll}_add_handle (watch, fd, events, cb, opaque, ff)
	HandleUpdate    // …_update_handle (watch, events)
	HandleRemove    // …_remove_handle (watch)
	HandleIdle      // …_remove_handle_idle (watch, ff, opaque)
	HandleDispatch  // …_dispatch_handle (watch, events, cb, opaque)
	TimeoutAdd      // …_add_timeout (timer, frequency ms, cb, opaque, ff)
	TimeoutUpdate   // …_update_timeout (timer, frequency)
	TimeoutRemove   // …_remove_timeout (timer)
	TimeoutIdle     // …_remove_timeout_idle (timer, ff, opaque)
	TimeoutDispatch // …_dispatch_timeout (timer, cb, opaque)
	PollRun         // event_poll_run (nfds, timeout): old event loop only

	MonitorNew    // qemu_monitor_new (mon, fd)
	MonitorRef    // qemu_monitor_ref (mon, …)
	MonitorUnref  // qemu_monitor_unref
	MonitorClose  // qemu_monitor_close (mon)
	MonitorSend   // qemu_monitor_send_msg (mon, msg, fd)
	MonitorReply  // qemu_monitor_recv_reply (mon, reply)
	MonitorEvent  // qemu_monitor_recv_event (mon, event)
	MonitorIO     // qemu_monitor_io_process (mon, buf, len)
	MonitorRead   // qemu_monitor_io_read (mon, buf, len, ret, errno)
	MonitorWrite  // qemu_monitor_io_write (mon, buf, len, ret, errno)
	MonitorSendFD // qemu_monitor_io_send_fd (mon, fd, ret, errno)

	ObjectNew     // object_new (obj, class)
	ObjectRef     // object_ref
	ObjectUnref   // object_unref
	ObjectDispose // object_dispose

	// Gone reports that a daemon (Comm, PID) that was traced has ended. No probe fires
	// for it.
	Gone
	// Warning carries one sentence in Strings[0]. No probe fires for it.
	Warning
	// Lost reports that Args[0] hits of Probe in process PID were lost since the last
	// such event, between the event before it and the one after it.
	Lost
	// HandleDone and TimeoutDone report that the dispatch which this thread
	// announced last has returned: Args[0] is its watch or timer, Took how long
	// it ran, FD what the handle was for.
	HandleDone
	TimeoutDone
	// Notices by the tracer about a call without an answer: with its header and
	// arguments, Call, and in Took its age.
	CallSlow       // it has run for longer than was asked for, and still runs
	CallOpen       // it still runs, and the trace ends
	CallUnanswered // its connection or its daemon has ended
)

// RPC reports whether k is one of the four RPC message kinds.
func (k Kind) RPC() bool { return k >= ClientTx && k <= ServerTx }

// Server reports whether k is seen in the daemon rather than in the client.
func (k Kind) Server() bool {
	return k == ServerRx || k == ServerTx || k == ServerNew || k == ServerFree || k >= AuthAllow && k <= AuthFail
}

// Notice reports whether events of kind k report a call without an answer.
func (k Kind) Notice() bool { return k >= CallSlow && k <= CallUnanswered }

// Rx reports whether k is a message that was read.
func (k Kind) Rx() bool { return k == ClientRx || k == ServerRx }

// Event is one hit of one probe, or a notice of the tracer itself (Gone,
// Warning). Its slices may be reused after the consumer returns: copy what is
// to be kept.
type Event struct {
	Kind  Kind
	Probe string    // provider:name as in the file, for example libvirt:rpc_client_msg_rx
	Mono  uint64    // nanoseconds of CLOCK_MONOTONIC
	Wall  time.Time // the same moment on the wall clock
	PID   int       // process, in the tracer's PID namespace
	TID   int       // thread
	CPU   int
	UID   int    // effective user of the process
	Comm  string // the thread's name: at most 15 bytes

	// Args are the probe's arguments as the note describes them, sign- or
	// zero-extended to 64 bits. Strings[i] is the text Args[i] points to where
	// the argument is a string, else "". Both may be shorter than the probe's
	// list in another build: use Arg and Text.
	Args    []uint64
	Strings []string
	Cut     bool // a string or the payload was longer than what was copied

	// The message header; set for RPC kinds and, as far as known, keepalive.
	Client uint64 // address of the virNetClient or virNetServerClient
	Len    int    // bytes of the whole message, length word included
	Prog   uint32
	Vers   uint32
	Proc   int32
	Type   uint32 // 0 call, 1 reply, 2 message, 3 stream, 4 call with fds, 5 reply with fds, 6 stream hole
	Status uint32 // 0 ok, 1 error, 2 continue
	Serial uint32
	// Payload is what follows the 28 bytes of length and header, as far as
	// captured; nil when the build's structures did not match or payloads were
	// not asked for. PayloadLen is its whole length on the wire.
	Payload    []byte
	PayloadLen int
	NoPayload  bool // the message could not be found in memory: header only

	// Regs and Stack are there with --stack: struct pt_regs as the kernel has
	// it, and the bytes from the stack pointer upwards.
	Regs  []byte
	Stack []byte
	// Return is the return address in it that the kernel has put one of its own in
	// place of; the zero Return is none.
	Return Return
	// Frames are that stack, unwound, the innermost first.
	Frames []Frame

	// Began is when the daemon's thread that sends this reply took up the call,
	// on CLOCK_MONOTONIC; 0 when unknown.
	Began uint64

	// What the session joins to it; nil or zero while unknown.
	Peer *Peer // the other end: the client's, of a server event; the daemon's, of a client event
	Call *Call // of RPC calls and replies: the pair
	// Cause is the RPC call that a monitor message was sent for. It is known
	// only when the call's reply is queued, so only on events that were withheld.
	Cause  *Call
	Worker bool          // of a monitor reply: a daemon's worker thread sent the command
	Domain string        // name of the virtual machine of a monitor event, where known
	Took   time.Duration // of a dispatch, monitor reply or RPC reply; 0 when unknown
	FD     string        // what the fd of a handle or socket is: a path, an address, "eventfd", …
}

// Arg returns argument i, or 0 where this build's probe has fewer.
func (e *Event) Arg(i int) uint64 {
	if i < len(e.Args) {
		return e.Args[i]
	}
	return 0
}

// Int returns argument i as the C int it is.
func (e *Event) Int(i int) int { return int(int32(e.Arg(i))) }

// Text returns string argument i, or "".
func (e *Event) Text(i int) string {
	if i < len(e.Strings) {
		return e.Strings[i]
	}
	return ""
}

// Procedure names an RPC procedure by its numbers.
type Procedure struct {
	Prog uint32
	Proc int32
}

// Peer is who is at the other end of a connection.
type Peer struct {
	PID      int    // of a Unix client; 0 for others
	UID      int    // of a Unix client; -1 when unknown
	User     string // name of UID, where it has one
	Start    uint64 // PID's start time in clock ticks, from /proc/PID/stat; with PID names a process uniquely
	Session  uint32 // audit session of PID; 0 when none
	Command  string // PID's command line, arguments separated by spaces
	Local    string // addresses as libvirt writes them: 127.0.0.1;36502
	Remote   string
	TLSName  string // distinguished name of the client's certificate
	SASLName string // identity after authentication
	SELinux  string // security context, of a client that a proxy has named
	// Via is the process of the proxy that called for this client, such as virtproxyd,
	// and named it; 0 for none.
	Via int
}

// Call is a call and its reply.
type Call struct {
	Prog   uint32
	Vers   uint32
	Proc   int32
	Serial uint32
	Client uint64 // of the side that matched first
	PID    int    // process that saw it
	Begin  uint64 // CLOCK_MONOTONIC nanoseconds when the call was first seen
	End    uint64 // when the reply was last seen; 0 while it runs
	// Shares of End-Begin, where both sides were seen: Network is the way
	// there and back, Queue from the daemon reading the call to a worker taking
	// it up (known where a probe of the worker fires), Service the rest.
	Network, Queue, Service time.Duration
	Type                    uint32 // of the call's message: 0, or 4 with file descriptors
	Args                    []byte // payload of the call, copied; bounded
	ArgsLen                 int    // its whole length on the wire
	Status                  uint32 // of the reply
	Served                  bool   // a daemon of this host was seen to read it
	Forwarded               bool   // that daemon made the same call at another, which knows the client too
	Named                   bool   // it named the client that a proxy calls for, and the daemon trusts it
	Domain                  string // name of the domain that it is about, if its arguments contain it
	Peer                    *Peer
	Monitor                 []Command // commands sent to QEMU for it, in order; at most 4096
}

// Command is one QEMU monitor command and its answer.
type Command struct {
	Monitor uint64
	Domain  string
	ID      string
	Send    uint64        // CLOCK_MONOTONIC nanoseconds
	Took    time.Duration // until the answer; 0 while there is none
	Text    string        // the command as sent, bounded
	Reply   string        // the answer, bounded; "" when it was not seen
}

// Completes reports whether the event is the answer that completes a call: the
// daemon's, or, where no daemon was seen to serve it, the one that the client reads.
func (e *Event) Completes() bool {
	c := e.Call
	return c != nil && c.End != 0 && (e.Kind == ServerTx || e.Kind == ClientRx && c.Service == 0)
}

// Process returns the name of the event's process as its thread's name suggests it:
// workers of libvirtd are called rpc-libvirtd and prio-rpc-libvir.
func (e *Event) Process() string {
	return strings.TrimPrefix(strings.TrimPrefix(e.Comm, "prio-"), "rpc-")
}

// Pointer returns argument i as an address in the event's process.
func (e *Event) Pointer(i int) Pointer { return Pointer{e.PID, e.Arg(i)} }

// Server reports whether the event is of a daemon's side of a connection.
func (e *Event) Server() bool { return e.Kind.Server() || e.Kind.Notice() && e.Call.Served }

// Connection returns the address of libvirt's object for the message's connection.
func (e *Event) Connection() Pointer { return Pointer{e.PID, e.Client} }
