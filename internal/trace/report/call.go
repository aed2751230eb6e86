package report

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// call is what is kept of a call.
type call struct {
	procedure               event.Procedure
	from                    uint64 // CLOCK_MONOTONIC nanoseconds
	took                    time.Duration
	queue, network, service time.Duration
	failed, open            bool
	dropped                 bool   // its connection or daemon ended before it was answered
	daemon                  string // key of its lane
	client, machine         string
	thread                  int
	arguments, answer       string
	commands                []command
	said                    int // commands, also those that are not kept
	detail                  *detail
	number                  int // on the page; 0 for none
}

// detail is what is shown of the slowest calls.
type detail struct {
	arguments, answer string
	made, answered    []event.Frame // stacks
}

// command is a command to a monitor of QEMU's.
type command struct {
	name, text string
	machine    string
	from       uint64
	took       time.Duration // 0 while there is no answer
	failed     bool
}

const (
	maxText     = 160  // bytes of arguments and answers
	maxLong     = 4000 // of those of the slowest calls
	maxName     = 80
	maxCommands = 64 // of a call
)

// describe returns what is kept of a call that is shown.
func (g *gatherer) describe(e *event.Event, c *call) *call {
	k := *c
	k.daemon, k.thread, k.service = g.daemonOf(e), e.TID, e.Call.Service
	switch p := e.Call.Peer; {
	case e.Server() && p != nil:
		k.client = string(format.Client(nil, p))
	default:
		k.client = string(format.Short(nil, e.Comm, 16)) + "[" + key(e.PID) + "]"
	}
	k.arguments, k.answer = g.arguments(e, maxText), g.answer(e, maxText)
	k.said = len(e.Call.Monitor)
	for i := range e.Call.Monitor[:min(k.said, maxCommands)] {
		k.commands = append(k.commands, newCommand(&e.Call.Monitor[i]))
	}
	return &k
}

func (g *gatherer) detail(e *event.Event) *detail {
	d := &detail{arguments: g.arguments(e, maxLong), answer: g.answer(e, maxLong), made: g.made.calls[e.Call]}
	if e.Kind == event.ServerTx {
		d.answered = slices.Clone(e.Frames)
	}
	return d
}

// arguments writes what a call was made with.
func (g *gatherer) arguments(e *event.Event, limit int) string {
	c := e.Call
	if c.Args == nil && c.ArgsLen > 0 {
		return "(not captured)"
	}
	return string(format.Short(nil, string(g.dec.Arguments(c).AppendText(nil, libvirt.Style{})), limit))
}

// answer writes the values or the error that a call was answered with.
func (g *gatherer) answer(e *event.Event, limit int) string {
	switch {
	case e.Kind == event.CallOpen:
		return "still running when the trace ended"
	case e.Kind == event.CallUnanswered:
		return "not answered: the connection or the daemon ended"
	case format.Unread(e):
		return "(not captured)"
	}
	return cmp.Or(string(format.Short(nil, string(g.dec.Event(e).AppendText(nil, libvirt.Style{})), limit)), "ok")
}

func newCommand(c *event.Command) command {
	m := qmp.Parse([]byte(c.Text))
	return command{
		name: commandName(&m), from: c.Send, took: c.Took, machine: c.Domain,
		text:   string(format.Short(nil, string(m.AppendMaskedBody(nil)), maxText)),
		failed: qmp.Parse([]byte(c.Reply)).Kind == qmp.Failure,
	}
}

func commandName(m *qmp.Message) string {
	if m.Kind != qmp.Command {
		return "unknown"
	}
	return string(format.Short(nil, string(m.Name), maxName))
}

// longest keeps the calls that took longest.
type longest struct {
	limit int
	calls []*call // a heap, the shortest first
}

func (l *longest) Len() int           { return len(l.calls) }
func (l *longest) Less(i, j int) bool { return l.calls[i].took < l.calls[j].took }
func (l *longest) Swap(i, j int)      { l.calls[i], l.calls[j] = l.calls[j], l.calls[i] }
func (l *longest) Push(x any)         { l.calls = append(l.calls, x.(*call)) }

// Pop implements a heap.
func (l *longest) Pop() any {
	last := l.calls[len(l.calls)-1]
	l.calls = l.calls[:len(l.calls)-1]
	return last
}

// takes reports whether a call that took d is among the longest.
func (l *longest) takes(d time.Duration) bool {
	return len(l.calls) < l.limit || d > l.calls[0].took
}

// add adds a call, and returns the one that it replaces, or nil.
func (l *longest) add(c *call) (out *call) {
	if len(l.calls) >= l.limit {
		out = heap.Pop(l).(*call)
	}
	heap.Push(l, c)
	return out
}
