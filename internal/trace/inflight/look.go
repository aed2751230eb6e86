//go:build linux

package inflight

import (
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/postern-project/postern/internal/trace/admin"
	"github.com/postern-project/postern/internal/trace/capture"
	"github.com/postern-project/postern/internal/trace/correlate"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/stack"
)

// Looker looks at the daemons of this host, without stopping or changing anything. It
// keeps what it learns of their files. Not safe for concurrent use.
type Looker struct {
	unwinder  *stack.Unwinder
	inspector *capture.Inspector
}

// NewLooker returns a Looker, which the caller closes.
func NewLooker() *Looker {
	return &Looker{unwinder: stack.New(stack.Config{}), inspector: capture.NewInspector()}
}

// Close closes the files that are open.
func (l *Looker) Close() { l.unwinder.Close() }

// Look returns what the daemons among the processes that map these files do now. What a
// trace has seen of their calls is joined; the zero Snapshot is none.
func (l *Looker) Look(libs []*capture.Library, seen correlate.Snapshot) []Daemon {
	var daemons []Daemon
	for _, d := range capture.Daemons(libs) {
		v := view{
			Looker: l, daemon: d, memory: memory(d.PID), seen: seen,
			clients: map[uint64]*client{}, calls: map[int]*Call{},
		}
		daemons = append(daemons, v.look())
	}
	markForwarded(daemons)
	return daemons
}

// view is one look at a daemon.
type view struct {
	*Looker
	daemon  capture.Daemon
	memory  memory
	now     time.Time
	seen    correlate.Snapshot
	threads map[int]string // names, by number
	stacks  map[int]*stack.Thread
	clients map[uint64]*client // by the daemon's number
	calls   map[int]*Call      // by thread
	out     Daemon
}

// client is a connection as the admin socket tells of it.
type client struct {
	admin.Client
	server string
	at     int // in view.out.Connections
}

func (v *view) look() Daemon {
	v.out = Daemon{
		Name: v.daemon.Name, PID: v.daemon.PID, Calls: []Call{}, Connections: []Connection{},
	}
	v.unwind()
	v.now = time.Now() // no thread has begun to wait later
	v.out.Time = v.now.UTC()
	v.ask() // after: it must know whose calls those are
	v.out.NotAccepted = v.notAccepted()
	var calls []*Call
	for _, c := range v.calls {
		if c.peer != nil {
			v.serve(c, c.peer, c.Connection)
		}
		calls = append(calls, c)
	}
	calls = v.join(append(calls, v.queued(calls)...))
	for tid, c := range v.calls {
		c.Waits = v.wait(tid, c)
	}
	for _, c := range calls {
		v.finish(c)
	}
	slices.SortStableFunc(calls, older)
	for _, c := range calls {
		v.out.Calls = append(v.out.Calls, *c)
	}
	return v.out
}

// older orders calls: the oldest first, and last those whose age has no lower bound.
func older(a, b *Call) int {
	least := func(c *Call) int64 {
		if c.AgeIs == AtMost {
			return 0
		}
		return c.Age
	}
	return cmp.Or(cmp.Compare(least(b), least(a)), cmp.Compare(b.Age, a.Age), cmp.Compare(a.Thread, b.Thread),
		cmp.Compare(a.Serial, b.Serial))
}

// problem notes why something is missing.
func (v *view) problem(text string) { v.out.Problems = append(v.out.Problems, text) }

// ask asks the admin socket.
func (v *view) ask() {
	servers, err := askDaemon(v.daemon.PID)
	if err != nil {
		v.problem("its clients and workers are not all known: " + err.Error())
	}
	for _, s := range servers {
		v.out.Servers = append(v.out.Servers, Server{
			Name: s.Name, Clients: s.Limits.Current, MaxClients: s.Limits.Max,
			Unauthenticated: s.Limits.CurrentUnauthenticated, MaxUnauthenticated: s.Limits.MaxUnauthenticated,
			Workers: s.Workers.Current, Busy: s.Workers.Current - min(s.Workers.Current, s.Workers.Free),
			MaxWorkers: s.Workers.Max, Queued: s.Workers.Queued, PriorityWorkers: s.Workers.Priority,
		})
		for _, c := range s.Clients {
			if s.Name == adminServer && c.PID == os.Getpid() {
				continue // this question
			}
			v.connected(s.Name, c)
		}
	}
}

func (v *view) connected(server string, c admin.Client) {
	if server != adminServer { // its clients are numbered by themselves
		v.clients[c.ID] = &client{Client: c, server: server, at: len(v.out.Connections)}
	}
	v.out.Connections = append(v.out.Connections, Connection{
		ID: c.ID, Server: server, Since: c.Since.UTC(), Transport: c.Transport, ReadOnly: c.ReadOnly,
		Client: v.describe(&c, nil),
	})
}

// describe returns who a client is, from what the admin socket says and from the
// connection's socket, each of which may be missing.
func (v *view) describe(c *admin.Client, socket *event.Peer) *Client {
	p := &event.Peer{UID: -1}
	if socket != nil {
		*p = *socket
	}
	if c == nil {
		return clientOf(p)
	}
	if c.PID > 0 && sameNamespace(v.daemon.PID, "pid") {
		proxy := p.PID
		p = v.inspector.Process(c.PID, c.UID)
		if p.User == "" {
			p.User = c.User
		}
		if proxy != 0 && proxy != c.PID {
			p.Via = proxy
		}
	}
	p.SASLName, p.TLSName, p.SELinux = c.SASLName, c.TLSName, c.SELinux
	if c.Transport != "unix" && c.Address != "" {
		p.Remote = c.Address
	}
	return clientOf(p)
}

// sameNamespace reports whether a process is in the same namespace of a kind as this one.
func sameNamespace(pid int, kind string) bool {
	own, err := os.Readlink("/proc/self/ns/" + kind)
	other, err2 := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
	return errors.Join(err, err2) == nil && own == other
}

// unwind reads the stacks of all threads, and which calls they work on.
func (v *view) unwind() {
	v.threads, v.stacks = capture.Threads(v.daemon.PID), map[int]*stack.Thread{}
	denied := false
	for tid := range v.threads {
		t, err := v.unwinder.Sleeping(v.daemon.PID, tid)
		for range 3 { // it may sleep again at once
			if !errors.Is(err, stack.ErrRuns) {
				break
			}
			t, err = v.unwinder.Sleeping(v.daemon.PID, tid)
		}
		denied = denied || errors.Is(err, os.ErrPermission)
		if err != nil {
			continue
		}
		v.stacks[tid] = &t
		if c := v.callOf(tid, &t); c != nil {
			v.calls[tid] = c
		} else if text := unseen(v.threads[tid], tid, &t); text != "" {
			v.problem(text)
		}
	}
	if denied {
		v.problem("what its threads do is not known: reading that needs root, or CAP_SYS_PTRACE")
	}
	if t := v.stacks[v.daemon.PID]; t != nil && t.In("poll", "__poll", "ppoll", "epoll_wait") < 0 {
		if in := within(t); in != "" {
			v.problem("its event loop is in " + in + ": it reads no calls meanwhile")
		}
	}
}

// callOf returns the call that a thread works on, or nil: the message and the client
// that it keeps the addresses of.
func (v *view) callOf(tid int, t *stack.Thread) *Call {
	i := t.In(dispatcher)
	if i < 0 {
		return nil
	}
	var c *Call
	words := t.Words(max(i-2, 0), i+3)
	for _, w := range words {
		if m, ok := v.memory.message(w); ok {
			c = newCall(m)
			break
		}
	}
	if c == nil || c.key.Prog == adminProgram {
		return nil
	}
	c.Thread = tid
	for _, w := range words {
		if !plausible(w) {
			continue
		}
		if p, id, ok := v.inspector.Client(v.daemon, w); ok {
			c.key.client, c.peer, c.Connection = w, p, id
			break
		}
	}
	return c
}

const adminProgram = 0x06900690

// serve sets for whom a call is.
func (v *view) serve(c *Call, p *event.Peer, id uint64) {
	known := v.clients[id]
	if c.Connection = id; known == nil {
		c.Client = clientOf(p)
		return
	}
	c.Client = v.describe(&known.Client, p)
	v.out.Connections[known.at].Client = c.Client
}

func newCall(m message) *Call {
	var d libvirt.Decoder
	decoded := d.Decode(m.Header, m.payload, m.size)
	c := &Call{
		Program: libvirt.ProgramName(m.Prog), Procedure: libvirt.ProcedureName(m.Prog, m.Proc), Serial: m.Serial,
		key: key{Header: libvirt.Header{Prog: m.Prog, Proc: m.Proc, Serial: m.Serial}},
	}
	if m.payload == nil && m.size > 0 {
		return c // headers only were asked for
	}
	c.text = string(decoded.AppendText(nil, libvirt.Style{}))
	if args := decoded.AppendJSON(nil, libvirt.Style{}); json.Valid(args) {
		c.Args = args
	}
	c.Domain = domainOf(decoded)
	return c
}

func domainOf(m *libvirt.Message) *Domain {
	o := m.Domain()
	d := Domain{Name: string(o.Name[:min(len(o.Name), 256)])}
	if len(o.UUID) == 16 {
		d.UUID = string(libvirt.AppendUUID(nil, o.UUID))
	}
	if d == (Domain{}) {
		return nil
	}
	return &d
}

// join joins what a trace has seen to the calls that threads work on, and adds those
// that no thread works on.
func (v *view) join(calls []*Call) []*Call {
	known := map[key]*Call{}
	for _, c := range calls {
		known[c.key] = c
	}
	for i := range v.seen.Calls {
		e := &v.seen.Calls[i]
		if !e.Call.Served || e.PID != v.daemon.PID || e.Prog == adminProgram {
			continue
		}
		c := newCall(message{libvirt.HeaderOf(e), e.Payload, e.PayloadLen})
		c.key.client = e.Client
		if at := known[c.key]; at != nil {
			c = at
		} else {
			if p, id, ok := v.inspector.Client(v.daemon, e.Client); ok {
				v.serve(c, p, id)
			}
			if v.full() {
				c.Waits = &Wait{For: ForWorker}
			}
			calls = append(calls, c)
		}
		c.Age, c.AgeIs = (e.Took + v.now.Sub(v.seen.Wall)).Microseconds(), Exact
		if e.Call.Peer != nil && (c.Client == nil || e.Call.Peer.Via != 0) {
			c.Client = clientOf(e.Call.Peer)
		}
	}
	return calls
}

// queued returns the calls that wait for a worker, as the pool of a busy one has them.
func (v *view) queued(calls []*Call) (more []*Call) {
	if !v.full() {
		return nil
	}
	known := map[key]bool{}
	for _, c := range calls {
		known[c.key] = true
	}
	for tid := range v.calls {
		t := v.stacks[tid]
		i := t.In(dispatcher)
		for _, q := range v.memory.queued(t.Words(i+1, i+workerFrames)) {
			c := newCall(q.message)
			c.key.client, c.Waits = q.client, &Wait{For: ForWorker}
			if known[c.key] || c.key.Prog == adminProgram {
				continue
			}
			known[c.key] = true
			if p, id, ok := v.inspector.Client(v.daemon, q.client); ok {
				v.serve(c, p, id)
			}
			more = append(more, c)
		}
		if len(more) > 0 {
			break // all workers have one pool
		}
	}
	return more
}

// workerFrames is how many frames there are at the most from the dispatcher to that of the
// pool's worker.
const workerFrames = 7

// full reports whether calls wait for a worker.
func (v *view) full() bool {
	return slices.ContainsFunc(v.out.Servers, func(s Server) bool {
		return s.Name != adminServer && (s.Queued > 0 || s.Busy >= s.MaxWorkers)
	})
}

// wait returns what a thread waits for that works on a call, and sets what that tells of
// the call's age.
func (v *view) wait(tid int, c *Call) *Wait {
	t := v.stacks[tid]
	why, at := reason(t)
	w := &Wait{For: why, In: within(t)}
	futex, sleeps := t.Futex()
	switch {
	case why == ForMonitor:
		v.monitor(w, tid, t, at)
	case why == ForJob:
		// The innermost function may be a static one without a name, as in libvirt 7.0.
		if began, ok := since(t.Words(t.In(conditions...)+1, at+1), v.now); ok {
			c.atLeast(v.now.Sub(began))
		}
		if j, ok := v.memory.jobOf(futex, v.threads, v.now); ok && sleeps {
			w.Holder = v.holder(j.owner)
			w.Holder.API, w.Holder.Age = j.api, v.now.Sub(j.started).Microseconds()
			if other := v.calls[j.owner]; other != nil {
				other.atLeast(v.now.Sub(j.started))
			}
		}
	case why == ForLock && sleeps:
		if owner := v.memory.mutexOwner(futex, v.threads); owner != 0 {
			w.Holder = v.holder(owner)
		}
	case why == ForProgram:
		if pid, ok := t.Child(); ok {
			w.Command = clientOf(v.inspector.Process(pid, -1)).Command
		}
	}
	return w
}

// atLeast notes that a call is at least so old.
func (c *Call) atLeast(age time.Duration) {
	if c.AgeIs != Exact && age.Microseconds() > c.Age {
		c.Age, c.AgeIs = age.Microseconds(), AtLeast
	}
}

// monitor sets which command of which virtual machine a thread waits for.
func (v *view) monitor(w *Wait, tid int, t *stack.Thread, at int) {
	text := v.memory.command(t.Words(0, at+4))
	if c, ok := v.seen.Commands[tid]; ok {
		text, w.Machine = c.Text, c.Domain
		w.Age = (c.Took + v.now.Sub(v.seen.Wall)).Microseconds()
	}
	w.set(text)
	if futex, ok := t.Futex(); ok && w.Machine == "" {
		w.Machine = capture.MonitorDomain(v.daemon.PID, futex&^7-monitorBefore)
	}
}

// monitorBefore is how many bytes before the condition that threads wait on a monitor is
// looked at: its descriptor stands shortly behind it (src/qemu/qemu_monitor.c).
const monitorBefore = 48

// holder describes a thread that has what another one waits for.
func (v *view) holder(tid int) *Holder {
	h := &Holder{Thread: tid}
	if c := v.calls[tid]; c != nil {
		h.Call, h.Client = c.Program+"."+c.Procedure, c.Client
	} else {
		h.Name = v.threads[tid]
	}
	return h
}

// finish counts a call to its connection, which is as old at the least.
func (v *view) finish(c *Call) {
	known := v.clients[c.Connection]
	if c.Connection == 0 || known == nil {
		return
	}
	v.out.Connections[known.at].Calls++
	if c.AgeIs == Unknown {
		c.Age, c.AgeIs = v.now.Sub(known.Since).Microseconds(), AtMost
	}
}

// markForwarded marks the calls that a daemon has made at another one of these, for the
// same client.
func markForwarded(daemons []Daemon) {
	for i := range daemons {
		for j := range daemons[i].Calls {
			c := &daemons[i].Calls[j]
			if c.Waits == nil || c.Waits.For != ForDaemon || c.Client == nil || c.Client.PID == 0 {
				continue
			}
			for k := range daemons {
				c.Forwarded = c.Forwarded || k != i && slices.ContainsFunc(daemons[k].Calls, func(o Call) bool {
					return o.Client != nil && o.Client.PID == c.Client.PID && o.key.Prog == c.key.Prog &&
						o.key.Proc == c.key.Proc && o.text == c.text
				})
			}
		}
	}
}
