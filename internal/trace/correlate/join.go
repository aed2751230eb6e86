package correlate

import (
	"bytes"
	"container/list"
	"maps"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// joiner matches calls to replies on both sides, monitor commands to answers and
// to the call that they were sent for, and dispatches to their ends.
type joiner struct {
	links   map[event.Pointer]*side
	sockets map[event.Pointer]socketPair
	tcp     map[socketPair]*side // clients by their addresses
	unix    map[int][]*side      // clients by their process
	threads map[int]*thread
	mons    map[event.Pointer]*monitorState
	domain  func(*event.Event) string // of a call's arguments
	clients map[int]*event.Peer       // local ones, by process
	serving map[int]bool              // processes that have been seen to be daemons
	forging map[int]bool              // daemons that may name another client than the one they call for
	decoder libvirt.Decoder
	running *list.List // of *call: may become slow; the oldest first
	slower  bool       // keep running
	dropped []*call    // their connections have ended; not handed on yet
}

type socketPair struct{ local, remote string }

// side is one end of a connection.
type side struct {
	at     event.Pointer
	server bool
	addr   socketPair
	other  *side
	client *event.Peer // the client that a proxy has named; nil for none
	calls  map[callKey]*call
}

type callKey struct {
	prog   uint32
	proc   int32
	serial uint32
}

// call is a call with the moments at which it was seen.
type call struct {
	event.Call
	clientTx, serverRx, serverTx   uint64
	first                          event.Event   // the call as the daemon saw it, else as the client did
	place                          *list.Element // in joiner.running
	named                          *side         // the connection whose real client it has named, or nil
	dropped                        bool          // no answer is expected
	withheldClient, withheldServer *event.Event  // the call itself, while it is not decided whether to show it
}

// thread is what is known of a daemon's thread.
type thread struct {
	commands []*event.Command
	made     []*call // calls that it made itself, since it last answered one
	comm     string
	pid      int
	dispatch event.Event // the last one announced; Kind Unknown when it has returned
}

// command is a monitor command, and whether a worker thread sent it.
type command struct {
	event.Command
	worker bool
}

type monitorState struct {
	waiting []*command // commands without an answer, the oldest first
}

// Bounds on what is remembered: a call of which no reply is seen, a command
// whose thread never answers a call.
const (
	maxCalls    = 1024 // of one connection
	maxCommands = 4096 // of one thread
	maxText     = 2048 // bytes of a command and its answer
	maxCallArgs = 4096 // bytes of a call's payload
	maxThreads  = 1 << 14
	maxLinks    = 1 << 16
)

func newJoiner(slower bool, domain func(*event.Event) string) *joiner {
	return &joiner{
		links: map[event.Pointer]*side{}, sockets: map[event.Pointer]socketPair{}, tcp: map[socketPair]*side{},
		unix:    map[int][]*side{},
		threads: map[int]*thread{}, mons: map[event.Pointer]*monitorState{}, domain: domain,
		clients: map[int]*event.Peer{}, serving: map[int]bool{}, forging: map[int]bool{},
		running: list.New(), slower: slower,
	}
}

// see joins an event to its call, its command or its dispatch. It returns the call
// that the event begins or completes, or nil.
func (j *joiner) see(e *event.Event) *call {
	switch k := e.Kind; {
	case k.RPC():
		return j.rpc(e)
	case k == event.SocketNew:
		event.Bound(j.sockets)
		j.sockets[e.Pointer(0)] = socketPair{e.Text(4), e.Text(5)}
	case k == event.SocketFree:
		delete(j.sockets, e.Pointer(0))
	case k == event.ClientNew || k == event.ServerNew:
		j.connect(e, j.sockets[e.Pointer(1)])
	case k == event.ClientFree || k == event.ServerFree:
		j.disconnect(e.Connection())
	case k == event.Gone:
		j.disconnectAll(func(at event.Pointer) bool { return at.PID == e.PID })
	case k == event.MonitorSend:
		j.command(e)
	case k == event.MonitorReply:
		j.answer(e)
	case k == event.MonitorClose:
		delete(j.mons, e.Pointer(0))
	case k == event.HandleDispatch || k == event.TimeoutDispatch:
		t := j.thread(e.TID)
		t.dispatch = *e
		t.dispatch.Args = append([]uint64(nil), e.Args...)
	case k == event.HandleDone || k == event.TimeoutDone:
		j.dispatched(e)
	}
	return nil
}

func (j *joiner) connect(e *event.Event, s socketPair) *side {
	at := e.Connection()
	j.disconnect(at)
	if len(j.links) >= maxLinks {
		j.disconnectAll(func(event.Pointer) bool { return true })
	}
	l := &side{at: at, server: e.Kind.Server(), addr: s, calls: map[callKey]*call{}}
	j.links[at] = l
	if l.server {
		event.Bound(j.serving)
		j.serving[e.PID] = true
		return l
	}
	if isTCP(l.addr) {
		j.tcp[l.addr] = l
	}
	j.unix[e.PID] = append(j.unix[e.PID], l)
	return l
}

// isTCP reports whether addresses are those of a TCP connection: libvirt writes
// Unix ones as 127.0.0.1;0.
func isTCP(a socketPair) bool {
	return a.local != "" && !strings.HasSuffix(a.local, ";0") && strings.Contains(a.local, ";")
}

func (j *joiner) disconnect(at event.Pointer) {
	l := j.links[at]
	if l == nil {
		return
	}
	delete(j.links, at)
	j.drop(l)
	if l.other != nil {
		l.other.other = nil
	}
	if l.server {
		return
	}
	if j.tcp[l.addr] == l {
		delete(j.tcp, l.addr)
	}
	rest := j.unix[at.PID][:0]
	for _, o := range j.unix[at.PID] {
		if o != l {
			rest = append(rest, o)
		}
	}
	if j.unix[at.PID] = rest; len(rest) == 0 {
		delete(j.unix, at.PID)
	}
}

func (j *joiner) rpc(e *event.Event) *call {
	at := e.Connection()
	l := j.links[at]
	if l == nil {
		var s socketPair
		if e.Peer != nil {
			s.local, s.remote = e.Peer.Local, e.Peer.Remote
		}
		l = j.connect(e, s)
	}
	if l.server {
		if j.remember(e.Peer); l.client != nil {
			e.Peer = l.client
		}
	}
	key := callKey{e.Prog, e.Proc, e.Serial}
	switch t := libvirt.Type(e.Type); {
	case t.IsCall():
		return j.begin(l, key, e)
	case t.IsReply():
		return j.end(l, key, e)
	}
	return nil
}

// begin notes a call. When the daemon reads what a client of this host sent,
// both share one.
func (j *joiner) begin(l *side, key callKey, e *event.Event) *call {
	var c *call
	if l.server {
		if o := j.pair(l, key, e); o != nil {
			c = o.calls[key]
		}
	}
	if c == nil {
		c = &call{Call: event.Call{
			Prog: e.Prog, Vers: e.Vers, Proc: e.Proc, Serial: e.Serial, Client: e.Client, PID: e.PID,
			Begin: e.Mono, Peer: e.Peer, Type: e.Type,
		}}
		c.asked(e, j.domain(e))
	}
	if l.server {
		if c.serverRx = e.Mono; c.clientTx != 0 {
			c.asked(e, j.domain(e)) // the client may have sent something else than it shows
		}
		c.Peer = e.Peer
	} else {
		c.clientTx = e.Mono
		if j.serving[e.PID] {
			j.forwards(e.TID, c)
		}
	}
	c.noted(e)
	if j.slower && c.place == nil {
		c.place = j.running.PushBack(c)
	}
	if len(l.calls) >= maxCalls {
		j.drop(l)
	}
	if old := l.calls[key]; old != nil {
		j.finish(old) // its answer was lost
	}
	l.calls[key] = c
	e.Call = &c.Call
	return c
}

// asked sets what the call asks for.
func (c *call) asked(e *event.Event, domain string) {
	c.Args, c.ArgsLen = bytes.Clone(e.Payload[:min(len(e.Payload), maxCallArgs)]), e.PayloadLen
	c.Domain = domain
}

// pair finds the client's side of a daemon's connection: by the addresses of a
// TCP one, by process and the call that it waits for of a Unix one.
func (j *joiner) pair(l *side, key callKey, e *event.Event) *side {
	if l.other != nil {
		if waits(l.other, key, e.Mono) {
			return l.other
		}
		l.other.other = nil
		l.other = nil
	}
	var found *side
	if isTCP(l.addr) {
		if o := j.tcp[socketPair{l.addr.remote, l.addr.local}]; o != nil && waits(o, key, e.Mono) {
			found = o
		}
	} else if pid := connected(e.Peer); pid != 0 {
		for _, o := range j.unix[pid] {
			if o.other == nil && !isTCP(o.addr) && waits(o, key, e.Mono) && (found == nil ||
				o.calls[key].clientTx < found.calls[key].clientTx) {
				found = o
			}
		}
	}
	if found != nil {
		l.other, found.other = found, l
	}
	return found
}

func waits(l *side, key callKey, now uint64) bool {
	c := l.calls[key]
	return c != nil && c.serverRx == 0 && c.clientTx <= now
}

// end completes a call.
func (j *joiner) end(l *side, key callKey, e *event.Event) *call {
	c := l.calls[key]
	if c == nil {
		if l.server {
			j.collect(e.TID) // of a call that began before the tracer
		}
		return nil
	}
	delete(l.calls, key)
	if l.server || !c.Served || c.serverTx != 0 { // what the daemon has read, only the daemon answers
		j.finish(c)
		c.End, c.Status = e.Mono, e.Status
	}
	if l.server {
		c.serverTx = e.Mono
		e.Took = span(c.serverRx, e.Mono)
		if e.Began > c.serverRx && e.Began <= e.Mono {
			c.Queue, c.Service = span(c.serverRx, e.Began), span(e.Began, e.Mono)
		} else {
			c.Service = e.Took
		}
		c.Monitor = j.collect(e.TID)
		c.Forwarded = j.forwarded(e.TID, c)
		if (event.Procedure{Prog: e.Prog, Proc: e.Proc}) == libvirt.SetIdentity {
			j.takeIdentity(l, c, e)
		}
	} else {
		e.Took = span(c.clientTx, e.Mono)
		if c.serverTx != 0 {
			c.Network = e.Took - span(c.serverRx, c.serverTx)
		}
	}
	e.Call = &c.Call
	return c
}

func span(from, to uint64) time.Duration {
	if from == 0 || to < from {
		return 0
	}
	return time.Duration(to - from)
}

func (j *joiner) thread(tid int) *thread {
	t := j.threads[tid]
	if t == nil {
		if len(j.threads) >= maxThreads {
			clear(j.threads)
		}
		t = &thread{}
		j.threads[tid] = t
	}
	return t
}

// collect takes the monitor commands that a thread has sent since it last
// answered a call: they were sent for the call that it answers now.
func (j *joiner) collect(tid int) []event.Command {
	t := j.threads[tid]
	if t == nil || len(t.commands) == 0 {
		return nil
	}
	out := make([]event.Command, len(t.commands))
	for i, c := range t.commands {
		out[i] = *c
	}
	t.commands = nil
	return out
}

func (j *joiner) command(e *event.Event) {
	text := e.Text(1)
	c := &command{worker: isWorker(e.Comm), Command: event.Command{
		Monitor: e.Arg(0), Domain: e.Domain, Send: e.Mono, ID: string(qmp.TailID([]byte(text))), Text: shorten(text),
	}}
	m := j.monitor(e)
	if len(m.waiting) >= maxCommands {
		m.waiting = m.waiting[1:]
	}
	m.waiting = append(m.waiting, c)
	t := j.thread(e.TID)
	t.comm, t.pid = e.Comm, e.PID
	if len(t.commands) >= maxCommands {
		t.commands = t.commands[1:]
	}
	t.commands = append(t.commands, &c.Command)
}

func (j *joiner) monitor(e *event.Event) *monitorState {
	at := e.Pointer(0)
	m := j.mons[at]
	if m == nil {
		event.Bound(j.mons)
		m = &monitorState{}
		j.mons[at] = m
	}
	return m
}

// answer matches a reply to its command by the id, or, when the reply's end was
// cut, by the order: a monitor has one command in flight.
func (j *joiner) answer(e *event.Event) {
	m := j.monitor(e)
	id := string(qmp.TailID([]byte(e.Text(1))))
	for i, c := range m.waiting {
		if id != "" && c.ID != id && !e.Cut {
			continue
		}
		c.Took, c.Reply = span(c.Send, e.Mono), shorten(e.Text(1))
		if e.Domain != "" {
			c.Domain = e.Domain
		}
		e.Took, e.Worker = c.Took, c.worker
		m.waiting = append(m.waiting[:i], m.waiting[i+1:]...)
		return
	}
}

func shorten(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Clone(s)
}

// dispatched copies what the beginning of a dispatch contains to its end.
func (j *joiner) dispatched(e *event.Event) {
	t := j.thread(e.TID)
	d := &t.dispatch
	if d.Kind == event.Unknown {
		return
	}
	e.Args, e.FD, e.Took = d.Args, d.FD, span(d.Mono, e.Mono)
	*d = event.Event{}
}

// serves reports whether a process is a daemon with connections.
func (j *joiner) serves(pid int) bool {
	for at, l := range j.links {
		if at.PID == pid && l.server {
			return true
		}
	}
	return false
}

// forget drops what belongs to processes that are gone.
func (j *joiner) forget(gone func(pid int) bool) {
	event.Forget(j.sockets, gone)
	event.Forget(j.mons, gone)
	for _, pids := range []map[int]bool{j.serving, j.forging} {
		maps.DeleteFunc(pids, func(pid int, _ bool) bool { return gone(pid) })
	}
	j.disconnectAll(func(at event.Pointer) bool { return gone(at.PID) })
}

// disconnectAll ends the connections of which hold is true.
func (j *joiner) disconnectAll(hold func(at event.Pointer) bool) {
	for at := range j.links {
		if hold(at) {
			j.disconnect(at)
		}
	}
}
