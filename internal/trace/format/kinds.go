package format

import (
	"github.com/postern-project/postern/internal/trace/event"
)

// form is how an argument is written.
type form uint8

const (
	number form = iota
	address
	words
	mask  // of events the fd is watched for
	every // milliseconds between a timeout's calls, or -1
)

type argument struct {
	name string
	form form
	at   int // position among the probe's arguments
}

// description is how events of one kind are named, and what they contain besides the
// connection.
type description struct {
	name  string // in JSON
	verb  string // as text
	color byte   // as text
	args  []argument
}

// described lists the kinds that are neither RPC messages nor monitor messages.
// The names are part of the JSON schema.
var described = map[event.Kind]description{
	event.ClientNew:  {"connection.new", "connected", green, nil},
	event.ServerNew:  {"connection.new", "connected", green, nil},
	event.ClientFree: {"connection.free", "closed", dim, nil},
	event.ServerFree: {"connection.free", "closed", dim, nil},

	event.SocketNew:    {"socket.new", "socket", dim, []argument{{"socket", address, 0}, {"fd", number, 1}}},
	event.SocketFree:   {"socket.free", "socket closed", dim, []argument{{"socket", address, 0}}},
	event.SocketSendFD: {"socket.send_fd", "passes fd", cyan, []argument{{"socket", address, 0}, {"fd", number, 1}}},
	event.SocketRecvFD: {"socket.recv_fd", "receives fd", cyan, []argument{{"socket", address, 0}, {"fd", number, 1}}},

	event.AuthAllow: {"auth.allow", "allowed", green, []argument{{"authtype", number, 1}, {"identity", words, 2}}},
	event.AuthDeny:  {"auth.deny", "refused", red, []argument{{"authtype", number, 1}, {"identity", words, 2}}},
	event.AuthFail:  {"auth.fail", "authentication failed", red, []argument{{"authtype", number, 1}}},

	event.TLSContextNew: {"tls.context.new", "TLS context", dim, []argument{
		{"context", address, 0},
		{"cacert", words, 1},
		{"cacrl", words, 2},
		{"cert", words, 3},
		{"key", words, 4},
		{"sanity_check", number, 5},
		{"require_valid", number, 6},
		{"is_server", number, 7},
	}},
	event.TLSContextFree: {"tls.context.free", "TLS context freed", dim, []argument{{"context", address, 0}}},
	event.TLSAllow: {
		"tls.allow", "TLS certificate accepted", green,
		[]argument{{"session", address, 1}, {"dname", words, 2}},
	},
	event.TLSDeny: {
		"tls.deny", "TLS certificate refused", red,
		[]argument{{"session", address, 1}, {"dname", words, 2}},
	},
	event.TLSFail: {"tls.fail", "TLS certificate check failed", red, []argument{{"session", address, 1}}},
	event.TLSNew: {"tls.new", "TLS session", dim, []argument{
		{"session", address, 0},
		{"context", address, 1},
		{"hostname", words, 2},
		{"is_server", number, 3},
	}},
	event.TLSFree:          {"tls.free", "TLS session freed", dim, []argument{{"session", address, 0}}},
	event.TLSHandshakePass: {"tls.handshake_pass", "TLS handshake done", green, []argument{{"session", address, 0}}},
	event.TLSHandshakeFail: {"tls.handshake_fail", "TLS handshake failed", red, []argument{{"session", address, 0}}},

	event.KeepaliveNew:  {"keepalive.new", "keepalive set up", dim, []argument{{"keepalive", address, 0}}},
	event.KeepaliveFree: {"keepalive.free", "keepalive freed", dim, []argument{{"keepalive", address, 0}}},
	event.KeepaliveStart: {
		"keepalive.start", "keepalive starts", dim,
		[]argument{{"keepalive", address, 0}, {"interval", number, 2}, {"count", number, 3}},
	},
	event.KeepaliveStop: {"keepalive.stop", "keepalive stops", dim, []argument{{"keepalive", address, 0}}},
	event.KeepaliveSend: {
		"keepalive.send", "keepalive sent", dim,
		[]argument{{"keepalive", address, 0}, {"procedure", number, 4}},
	},
	event.KeepaliveRecv: {
		"keepalive.received", "keepalive received", dim,
		[]argument{{"keepalive", address, 0}, {"procedure", number, 4}},
	},
	event.KeepaliveTimeout: {
		"keepalive.timeout", "keepalive timeout", yellow,
		[]argument{{"keepalive", address, 0}, {"count_to_death", number, 2}, {"idle", number, 3}},
	},

	event.HandleAdd: {
		"handle.add", "+ handle", green,
		[]argument{{"watch", number, 0}, {"fd", number, 1}, {"events", mask, 2}},
	},
	event.HandleUpdate: {"handle.update", "* handle", dim, []argument{{"watch", number, 0}, {"events", mask, 1}}},
	event.HandleRemove: {"handle.remove", "- handle", dim, []argument{{"watch", number, 0}}},
	event.HandleIdle:   {"handle.purge", "! handle", dim, []argument{{"watch", number, 0}}},
	event.HandleDispatch: {
		"handle.dispatch", "> handle", cyan,
		[]argument{{"watch", number, 0}, {"events", mask, 1}},
	},
	event.HandleDone: {"handle.done", "< handle", cyan, []argument{{"watch", number, 0}}},
	event.TimeoutAdd: {
		"timeout.add", "+ timeout", green,
		[]argument{{"timer", number, 0}, {"frequency", every, 1}},
	},
	event.TimeoutUpdate: {
		"timeout.update", "* timeout", dim,
		[]argument{{"timer", number, 0}, {"frequency", every, 1}},
	},
	event.TimeoutRemove:   {"timeout.remove", "- timeout", dim, []argument{{"timer", number, 0}}},
	event.TimeoutIdle:     {"timeout.purge", "! timeout", dim, []argument{{"timer", number, 0}}},
	event.TimeoutDispatch: {"timeout.dispatch", "> timeout", cyan, []argument{{"timer", number, 0}}},
	event.TimeoutDone:     {"timeout.done", "< timeout", cyan, []argument{{"timer", number, 0}}},
	event.PollRun:         {"loop.poll", "~ poll", dim, []argument{{"nfds", number, 0}, {"timeout", number, 1}}},

	event.MonitorNew: {
		"monitor.new", "monitor opened", green,
		[]argument{{"monitor", address, 0}, {"fd", number, 1}},
	},
	event.MonitorRef:   {"monitor.ref", "monitor ref", dim, []argument{{"monitor", address, 0}}},
	event.MonitorUnref: {"monitor.unref", "monitor unref", dim, []argument{{"monitor", address, 0}}},
	event.MonitorClose: {"monitor.close", "monitor closed", dim, []argument{{"monitor", address, 0}}},
	event.MonitorIO: {
		"monitor.io_process", "monitor input", dim,
		[]argument{{"monitor", address, 0}, {"length", number, 2}},
	},
	event.MonitorRead: {
		"monitor.io_read", "monitor read", dim,
		[]argument{{"monitor", address, 0}, {"length", number, 2}, {"ret", number, 3}, {"errno", number, 4}},
	},
	event.MonitorWrite: {
		"monitor.io_write", "monitor write", dim,
		[]argument{{"monitor", address, 0}, {"length", number, 2}, {"ret", number, 3}, {"errno", number, 4}},
	},
	event.MonitorSendFD: {
		"monitor.send_fd", "passes fd to QEMU", cyan,
		[]argument{{"monitor", address, 0}, {"fd", number, 1}, {"ret", number, 2}, {"errno", number, 3}},
	},

	event.ObjectNew:     {"object.new", "object", dim, []argument{{"object", address, 0}, {"class", words, 1}}},
	event.ObjectRef:     {"object.ref", "object ref", dim, []argument{{"object", address, 0}}},
	event.ObjectUnref:   {"object.unref", "object unref", dim, []argument{{"object", address, 0}}},
	event.ObjectDispose: {"object.dispose", "object gone", dim, []argument{{"object", address, 0}}},
}

// watched are the events of libvirt's event loop, as virEventHandleType has them.
var watched = [...]string{"readable", "writable", "error", "hangup"}

// authTypes are libvirt's kinds of authentication.
var authTypes = [...]string{"none", "sasl", "polkit"}

// arg returns argument i as the event's build has it: old builds put a count of
// references after the first.
func arg(e *event.Event, i int) int {
	if e.Kind == event.SocketNew && len(e.Args) == 7 && i > 0 {
		return i + 1
	}
	return i
}

// Name returns the name of a kind as the JSON lines have it, but of RPC messages "".
func Name(k event.Kind) string {
	if n := monitorNames[k]; n != "" {
		return n
	}
	if n := noticeNames[k]; n != "" {
		return n
	}
	return described[k].name
}
