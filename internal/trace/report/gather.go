package report

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/export"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// gatherer is a sink that sums up a recording.
type gatherer struct {
	first, last moment
	counts      counts
	procedures  map[event.Procedure]*procedure
	daemons     group
	clients     group
	machines    group
	names       map[int]string         // of daemons, by process
	whose       map[*event.Peer]string // names of lanes of clients
	known       format.Machines
	slow        longest // with details
	open        []*call // without an answer
	made        madeBy
	unread      map[*event.Call]*call // answered, but not yet seen to be read
	monitors    map[event.Pointer]*command
	failures    failures
	notes       notes
	stacks      export.Profile
	stacked     bool
	dec         libvirt.Decoder
}

// moment is one point in time on both clocks.
type moment struct {
	mono uint64
	wall time.Time
}

// counts are the numbers at the top of the page.
type counts struct {
	Messages, Calls, Failed, Open, Events, Connections, Commands, Headers int64
}

const (
	slowest = 50  // calls are shown in detail
	maxOpen = 500 // calls without an answer are listed
)

func newGatherer() *gatherer {
	return &gatherer{
		procedures: map[event.Procedure]*procedure{},
		daemons:    group{lanes: map[string]*lane{}}, clients: group{lanes: map[string]*lane{}},
		machines: group{lanes: map[string]*lane{}},
		names:    map[int]string{}, whose: map[*event.Peer]string{},
		slow: longest{limit: slowest}, made: newMadeBy(), unread: map[*event.Call]*call{},
		monitors: map[event.Pointer]*command{}, failures: failures{},
	}
}

// Idle implements a sink.
func (g *gatherer) Idle() error { return nil }

// Event takes an event of a recording.
func (g *gatherer) Event(e *event.Event) error {
	if g.first.mono == 0 {
		g.first = moment{e.Mono, e.Wall}
	}
	if e.Mono > g.last.mono {
		g.last = moment{e.Mono, e.Wall}
	}
	g.daemon(e)
	if g.stacked = g.stacked || len(e.Frames) > 0; g.stacked {
		if err := g.stacks.Event(e); err != nil {
			return err
		}
	}
	switch k := e.Kind; {
	case k.RPC():
		g.message(e)
	case k == event.CallOpen || k == event.CallUnanswered:
		g.unanswered(e)
	case k == event.MonitorSend:
		g.command(e)
	case k == event.MonitorReply:
		g.reply(e)
	case k == event.ServerNew:
		g.counts.Connections++
	case noted(k):
		return g.notes.add(e)
	}
	return nil
}

// daemon learns a daemon's name, best from its main thread.
func (g *gatherer) daemon(e *event.Event) {
	if e.Kind.Server() && (g.names[e.PID] == "" || e.TID == e.PID) {
		event.Bound(g.names)
		g.names[e.PID] = e.Process()
	}
}

func (g *gatherer) message(e *event.Event) {
	g.counts.Messages++
	if format.Unread(e) {
		g.counts.Headers++
	}
	t := libvirt.Type(e.Type)
	switch {
	case t == libvirt.Event:
		g.counts.Events++
	case e.Completes():
		g.completed(e)
	case e.Kind == event.ClientRx && e.Call != nil && t.IsReply():
		g.read(e)
	case e.Kind == event.ClientTx && e.Call != nil && len(e.Frames) > 0:
		g.made.add(e.Call, e.Frames)
	}
}

// read completes a call that was answered with the way there and back.
func (g *gatherer) read(e *event.Event) {
	if c := g.unread[e.Call]; c != nil {
		c.network = e.Call.Network
		delete(g.unread, e.Call)
	}
	delete(g.made.calls, e.Call)
}

// completed counts a call with its answer e.
func (g *gatherer) completed(e *event.Event) {
	c := call{
		procedure: event.Procedure{Prog: e.Prog, Proc: e.Proc}, from: e.Mono - uint64(e.Took), took: e.Took,
		failed: libvirt.Status(e.Status) == libvirt.Failed, queue: e.Call.Queue,
	}
	if !e.Call.Forwarded { // else the daemon that does it counts it
		g.counts.Calls++
		p := g.procedure(c.procedure)
		p.took = append(p.took, e.Took)
		p.total += e.Took
		p.queued += e.Call.Queue
		if c.failed {
			g.counts.Failed++
			p.failed++
			g.fail(e)
		}
	}
	g.place(e, &c)
}

// unanswered counts a call without an answer. If e ends the trace, it still runs.
func (g *gatherer) unanswered(e *event.Event) {
	c := call{
		procedure: event.Procedure{Prog: e.Prog, Proc: e.Proc}, from: e.Mono - uint64(e.Took), took: e.Took,
		open: true, dropped: e.Kind == event.CallUnanswered,
	}
	g.counts.Open++
	g.procedure(c.procedure).open++
	if k := g.place(e, &c); len(g.open) < maxOpen {
		g.open = append(g.open, cmp.Or(k, g.describe(e, &c)))
	}
}

func (g *gatherer) procedure(id event.Procedure) *procedure {
	p := g.procedures[id]
	if p == nil {
		event.Bound(g.procedures)
		p = &procedure{name: libvirt.ProgramName(id.Prog) + "." + libvirt.ProcedureName(id.Prog, id.Proc)}
		g.procedures[id] = p
	}
	return p
}

// place puts a call into the lanes that it belongs to. It returns what is kept of it,
// or nil.
func (g *gatherer) place(e *event.Event, c *call) *call {
	c.machine = g.machine(e)
	lanes := []*lane{g.daemons.lane(g.daemonOf(e))}
	if e.Call == nil || !e.Call.Forwarded {
		lanes = append(lanes, g.clients.lane(g.client(e)))
		if c.machine != "" {
			lanes = append(lanes, g.machines.lane(c.machine))
		}
	}
	var kept *call
	if g.slow.takes(c.took) {
		kept = g.describe(e, c)
		kept.detail = g.detail(e)
		if out := g.slow.add(kept); out != nil {
			out.detail = nil
		}
	}
	for _, l := range lanes {
		l.count(c, c.from-min(g.first.mono, c.from))
		if l.longest.takes(c.took) {
			if kept == nil {
				kept = g.describe(e, c)
			}
			l.longest.add(kept)
		}
	}
	if kept != nil && e.Kind == event.ServerTx && e.Call.PID != e.PID {
		event.Bound(g.unread)
		g.unread[e.Call] = kept
	}
	return kept
}

// daemonOf returns the key of the lane of an event's daemon.
func (g *gatherer) daemonOf(e *event.Event) string {
	if e.Server() {
		return key(e.PID)
	}
	if p := e.Peer; p != nil && p.Remote != "" && !strings.HasSuffix(p.Remote, ";0") {
		host, _, _ := strings.Cut(p.Remote, ";")
		return "daemon at " + string(format.Short(nil, host, 64))
	}
	return "a daemon that was not watched"
}

// client returns the name of the lane of an event's client: who it is, without what
// differs from one process or connection to the next.
func (g *gatherer) client(e *event.Event) string {
	p := e.Call.Peer
	if !e.Server() || p == nil {
		return string(format.Short(nil, e.Comm, 16))
	}
	name, known := g.whose[p]
	if !known {
		event.Bound(g.whose)
		name = cmp.Or(string(format.Who(nil, p)), "unknown")
		g.whose[p] = name
	}
	return name
}

// machine returns the key of the virtual machine that a call is about, or "".
func (g *gatherer) machine(e *event.Event) string {
	if key := g.known.Of(&g.dec, e); key != "" {
		return key
	}
	for i := range e.Call.Monitor {
		if name := e.Call.Monitor[i].Domain; name != "" {
			return g.known.Key(name, nil)
		}
	}
	return ""
}

// command notes what is said to a monitor, which has one command in flight.
func (g *gatherer) command(e *event.Event) {
	g.counts.Commands++
	event.Bound(g.monitors)
	m := qmp.Parse([]byte(e.Text(1)))
	g.monitors[e.Pointer(0)] = &command{
		name: commandName(&m), from: e.Mono, machine: g.known.Key(e.Domain, nil),
		text: string(format.Short(nil, string(m.AppendMaskedBody(nil)), maxText)),
	}
}

// reply shows in a machine's lane a command that no call was the reason of. Those of
// calls come with them.
func (g *gatherer) reply(e *event.Event) {
	c := g.monitors[e.Pointer(0)]
	delete(g.monitors, e.Pointer(0))
	if c == nil || e.Worker {
		return
	}
	c.machine = cmp.Or(c.machine, g.known.Key(e.Domain, nil))
	c.failed = bytes.Contains([]byte(e.Text(1)), []byte(`"error"`)) && qmp.Parse([]byte(e.Text(1))).Kind == qmp.Failure
	if c.took = e.Took; c.machine != "" {
		g.machines.lane(c.machine).say(c)
	}
}

// finish shows the commands to monitors that have not been answered.
func (g *gatherer) finish() {
	left := slices.SortedFunc(maps.Values(g.monitors), func(a, b *command) int { return cmp.Compare(a.from, b.from) })
	for _, c := range left {
		if c.machine != "" {
			g.machines.lane(c.machine).say(c)
		}
	}
}
