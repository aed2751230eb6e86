// Package correlate pairs the events of probes: calls with replies on both sides of a
// connection, monitor commands with answers and with the call that they were sent for,
// dispatches with their ends. It filters by what was paired.
// It knows nothing of how events came: live, or from a recording.
package correlate

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Pipeline is what every event passes, live or recorded: it is joined to its call,
// command or dispatch, filtered, and handed on.
type Pipeline struct {
	join    *joiner
	filter  Filter
	tree    bool
	decoder libvirt.Decoder
	names   map[[16]byte]string // domains by UUID
	warned  map[int]uint64      // threads whose dispatch was reported as stalled, and when it began
	newest  moment              // of the newest event
}

// New returns a pipeline that drops what f does not choose. With tree it also
// withholds the monitor messages of calls: the calls' replies carry them.
func New(f Filter, tree bool) *Pipeline {
	p := &Pipeline{filter: f, tree: tree, names: map[[16]byte]string{}, warned: map[int]uint64{}}
	p.join = newJoiner(f.Slower > 0, p.domain)
	return p
}

// Event joins an event to its call, command or dispatch, and hands it on, withholds
// it or drops it.
func (p *Pipeline) Event(e *event.Event, sink event.Sink) error {
	p.newest = moment{e.Mono, e.Wall}
	if err := p.slow(e.Mono, sink); err != nil {
		return err
	}
	c := p.join.see(e)
	if err := p.unanswered(e.Mono, sink); err != nil {
		return err
	}
	if p.tree && ofCall(e) {
		return nil
	}
	switch p.filter.judge(e, c, p.domain) {
	case drop:
		return nil
	case hold:
		if c != nil {
			c.hold(e)
		}
		return nil
	}
	if c != nil {
		if h := c.release(e); h != nil {
			if err := sink.Event(h); err != nil {
				return err
			}
		}
	}
	return sink.Event(e)
}

// hold keeps a copy of the call until its reply decides.
func (c *call) hold(e *event.Event) {
	h := *e
	h.Args, h.Strings = slices.Clone(e.Args), slices.Clone(e.Strings)
	h.Payload = bytes.Clone(e.Payload[:min(len(e.Payload), maxCallArgs)])
	h.Cut = h.Cut || len(h.Payload) < len(e.Payload)
	if e.Kind.Server() {
		c.withheldServer = &h
	} else {
		c.withheldClient = &h
	}
}

// release returns the withheld call of the reply's side.
func (c *call) release(reply *event.Event) *event.Event {
	if !libvirt.Type(reply.Type).IsReply() {
		return nil
	}
	withheld := &c.withheldClient
	if reply.Kind.Server() {
		withheld = &c.withheldServer
	}
	h := *withheld
	*withheld = nil
	return h
}

// ofCall reports whether a monitor message is sent, or answered, on behalf of an
// RPC call: by a worker thread of a daemon, to whom the answer goes too.
func ofCall(e *event.Event) bool {
	return e.Kind == event.MonitorSend && isWorker(e.Comm) || e.Kind == event.MonitorReply && e.Worker
}

// isWorker reports whether a thread's name is that of a daemon's worker:
// rpc-libvirtd, prio-rpc-libvir.
func isWorker(comm string) bool {
	return strings.HasPrefix(comm, "rpc-") || strings.HasPrefix(comm, "prio-rpc-")
}

// domain returns the name of the virtual machine that a message is about, or "".
func (p *Pipeline) domain(e *event.Event) string {
	if len(e.Payload) == 0 || len(p.filter.Domains) == 0 {
		return ""
	}
	m := p.decoder.Event(e)
	d := m.Domain()
	if d.Kind == libvirt.ObjectNone {
		return ""
	}
	var id [16]byte
	copy(id[:], d.UUID)
	if len(d.Name) == 0 {
		return p.names[id]
	}
	if name, ok := p.names[id]; ok && len(d.UUID) == 16 && name == string(d.Name) {
		return name
	}
	name := string(d.Name)
	if len(d.UUID) == 16 {
		event.Bound(p.names)
		p.names[id] = name
	}
	return name
}

// Stalled returns a sentence for each dispatch that has been running for longer
// than Filter.Slow and was not reported before.
func (p *Pipeline) Stalled(now uint64) []string {
	if p.filter.Slow == 0 {
		return nil
	}
	var out []string
	for tid, t := range p.join.threads {
		d := &t.dispatch
		took := span(d.Mono, now)
		if d.Kind == event.Unknown || took < p.filter.Slow || p.warned[tid] == d.Mono {
			continue
		}
		event.Bound(p.warned)
		p.warned[tid] = d.Mono
		what := "handle"
		if d.Kind == event.TimeoutDispatch {
			what = "timeout"
		}
		text := fmt.Sprintf("the event loop of process %d has been in %s %d for %v", d.PID, what, d.Int(0),
			took.Round(time.Millisecond))
		if d.FD != "" {
			text += " (" + d.FD + ")"
		}
		out = append(out, text)
	}
	return out
}

// End hands on the calls that are still open, and with a tree the monitor commands
// whose call was still running.
func (p *Pipeline) End(now uint64, sink event.Sink) error {
	if err := p.Idle(now, sink); err != nil {
		return err
	}
	for _, c := range p.join.open() {
		if err := p.report(event.CallOpen, c, now, sink); err != nil {
			return err
		}
	}
	if !p.tree {
		return nil
	}
	for tid, t := range p.join.threads {
		if !isWorker(t.comm) {
			continue
		}
		if err := p.left(tid, t, sink); err != nil {
			return err
		}
	}
	return nil
}

// left hands on the commands that a thread has sent for a call that still runs.
func (p *Pipeline) left(tid int, t *thread, sink event.Sink) error {
	for _, c := range p.join.collect(tid) {
		e := event.Event{
			Kind: event.MonitorSend, Mono: c.Send, Wall: p.wall(c.Send), PID: t.pid, TID: tid, Comm: t.comm,
			Args: []uint64{c.Monitor}, Strings: []string{"", c.Text}, Domain: c.Domain, Took: c.Took,
		}
		if p.filter.judge(&e, nil, p.domain) != pass {
			continue
		}
		if err := sink.Event(&e); err != nil {
			return err
		}
	}
	return nil
}

// Serves reports whether a process is a daemon with connections.
func (p *Pipeline) Serves(pid int) bool { return p.join.serves(pid) }

// Forget drops what belongs to processes that are gone.
func (p *Pipeline) Forget(gone func(pid int) bool) { p.join.forget(gone) }
