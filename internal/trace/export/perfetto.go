package export

import (
	"bufio"
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// Perfetto writes a trace for Perfetto's user interface and its trace processor. Each
// process has a track of its calls, in which the daemon's contain what they waited for and
// what was said to QEMU; the client's slice of a call leads to the daemon's. Virtual
// machines have a track of commands and events that no call was the reason of, threads one
// of dispatches. A call without an answer has no end. Secrets are masked. It is a sink of a
// session, not safe for concurrent use.
type Perfetto struct {
	w      *bufio.Writer
	dec    libvirt.Decoder
	begun  bool
	tracks map[track]*rows
	sends  map[event.Pointer]sent // the command that a monitor has not answered
	calls  int                    // slices of them
}

// track names a track: a process, what happens in one, a thread, a virtual machine.
type track struct {
	kind, name string
	pid, tid   int
}

// sent is a command that has been sent to a monitor.
type sent struct {
	name, machine string
	at            uint64
	details       protobuf
}

// The kinds of tracks.
const (
	trackProcess  = "process"
	trackCalls    = "calls"
	trackThread   = "thread"
	trackMachines = "virtual machines"
	trackMachine  = "machine"
	trackLost     = "lost"
)

// rows are tracks of one name, which the user interface shows as one: slices that
// overlap are in different ones.
type rows struct {
	ends []uint64 // of each row, when its last slice ended
}

// maxTracks bounds how many tracks are remembered; a track that is described twice is
// the same.
const maxTracks = 1 << 14

// NewPerfetto returns a sink that writes to w.
func NewPerfetto(w io.Writer) *Perfetto {
	return &Perfetto{w: bufio.NewWriter(w), tracks: map[track]*rows{}, sends: map[event.Pointer]sent{}}
}

// Event writes what an event completes.
func (p *Perfetto) Event(e *event.Event) error {
	if !p.begun {
		p.begun = true
		p.clocks(e)
	}
	switch k := e.Kind; {
	case e.Call != nil && (e.Took > 0 || k.Notice()) && ends(e):
		p.call(e)
	case k == event.MonitorSend:
		p.command(e)
	case k == event.MonitorReply:
		p.reply(e)
	case k == event.MonitorEvent:
		m := qmp.Parse([]byte(e.Text(1)))
		p.instant(p.machine(e.Domain), e.Mono, string(m.Name), annotate(nil, "data", string(m.AppendMaskedBody(nil))))
	case (k == event.HandleDone || k == event.TimeoutDone) && e.Took > 0:
		p.dispatch(e)
	case k == event.Lost:
		at := p.row(track{kind: trackLost}, e.Mono, 0, nil)
		p.instant(at, e.Mono, fmt.Sprintf("%d lost of %s in %s[%d]", e.Arg(0), e.Probe, e.Comm, e.PID), nil)
	case k == event.Gone:
		p.instant(p.process(e), e.Mono, "the daemon has ended", nil)
	}
	return nil
}

// Idle writes out what is buffered.
func (p *Perfetto) Idle() error { return p.w.Flush() }

// finish writes the commands that have no answer.
func (p *Perfetto) finish() (string, error) {
	open := slices.SortedFunc(maps.Values(p.sends), func(a, b sent) int { return cmp.Compare(a.at, b.at) })
	for _, s := range open {
		p.begin(p.machineRow(s.machine, s.at, 0), s.at, s.name, "qmp", s.details)
	}
	return "slices of " + strconv.Itoa(p.calls) + " sides of calls written", p.Idle()
}

// call writes the slice of one side of a call, whose answer or notice e is.
func (p *Perfetto) call(e *event.Event) {
	p.calls++
	c := e.Call
	begin, end := e.Mono-uint64(e.Took), e.Mono
	if e.Kind.Notice() {
		end = 0
	}
	at := p.row(track{kind: trackCalls, pid: e.PID}, begin, end, func() uint64 { return p.process(e) })
	name := libvirt.ProgramName(e.Prog) + "." + libvirt.ProcedureName(e.Prog, e.Proc)
	details := p.details(e)
	flow := hash("flow", strconv.FormatUint(c.Begin, 16), key(c.PID), strconv.FormatUint(c.Client, 16),
		strconv.FormatUint(uint64(c.Serial), 16))
	p.begin(at, begin, name, category(e), details.fixed(eventFlow, flow))
	if e.Kind == event.ServerTx {
		p.within(at, e, begin)
	}
	if end > 0 {
		p.end(at, end)
	}
}

// within writes what happened while the daemon worked on a call: it waited for a worker,
// it asked QEMU.
func (p *Perfetto) within(at uint64, e *event.Event, begin uint64) {
	last := begin
	if q := uint64(e.Call.Queue); q > 0 {
		last = min(begin+q, e.Mono)
		p.begin(at, begin, "waits for a worker", "queue", nil)
		p.end(at, last)
	}
	for i := range e.Call.Monitor {
		c := &e.Call.Monitor[i]
		from, to := max(c.Send, last), min(c.Send+uint64(c.Took), e.Mono)
		if c.Took == 0 {
			to = e.Mono
		}
		if from > to {
			continue // of a clock that went back
		}
		last = to
		m := qmp.Parse([]byte(c.Text))
		details := annotate(nil, "machine", c.Domain)
		details = annotate(details, "arguments", string(m.AppendMaskedBody(nil)))
		details = annotate(details, "answer", outcome([]byte(c.Reply), c.Took))
		p.begin(at, from, commandName(&m), "qmp", details)
		p.end(at, to)
	}
}

// details are what is told of a call.
func (p *Perfetto) details(e *event.Event) protobuf {
	c := e.Call
	var m protobuf
	if c.Args != nil || c.ArgsLen == 0 {
		args := p.dec.Arguments(c)
		m = annotate(m, "arguments", string(args.AppendText(nil, libvirt.Style{})))
		m = annotate(m, "machine", string(args.Domain().Name))
	}
	switch {
	case e.Kind == event.CallOpen:
		m = annotate(m, "state", "still running when the trace ended")
	case e.Kind == event.CallUnanswered:
		m = annotate(m, "state", "not answered: the connection or the daemon ended")
	case !format.Unread(e):
		m = annotate(m, "answer", string(p.dec.Event(e).AppendText(nil, libvirt.Style{})))
	}
	if c.Peer != nil && e.Server() {
		m = annotate(m, "client", string(format.Client(nil, c.Peer)))
		m = annotate(m, "command", format.MaskCommand(c.Peer.Command))
	}
	m = annotate(m, "connection", string(format.Pointer(nil, e.Client, 0)))
	m = annotate(m, "serial", strconv.FormatUint(uint64(e.Serial), 10))
	return annotate(m, "thread", e.Comm+"["+key(e.TID)+"]")
}

func category(e *event.Event) string {
	if libvirt.Status(e.Status) == libvirt.Failed && !e.Kind.Notice() {
		return "failed"
	}
	return "rpc"
}

func commandName(m *qmp.Message) string {
	if m.Kind != qmp.Command {
		return "unknown command"
	}
	return string(m.Name)
}

// outcome says how a command was answered.
func outcome(reply []byte, took time.Duration) string {
	m := qmp.Parse(reply)
	switch {
	case took == 0:
		return "none"
	case m.Kind == qmp.Failure:
		return string(m.Class) + ": " + string(qmp.AppendWithoutPasswords(nil, m.Desc, m.Cut))
	}
	return "ok"
}

// command writes a command that no call is the reason of, or whose call still runs.
func (p *Perfetto) command(e *event.Event) {
	m := qmp.Parse([]byte(e.Text(1)))
	s := sent{commandName(&m), e.Domain, e.Mono, annotate(nil, "arguments", string(m.AppendMaskedBody(nil)))}
	if e.Took > 0 { // its call runs: the answer has been seen
		p.answered(s, e.Mono+uint64(e.Took))
		return
	}
	event.Bound(p.sends)
	p.sends[e.Pointer(0)] = s
}

func (p *Perfetto) reply(e *event.Event) {
	s, known := p.sends[e.Pointer(0)]
	delete(p.sends, e.Pointer(0))
	if !known || e.Took == 0 {
		return
	}
	s.machine = cmp.Or(s.machine, e.Domain)
	s.details = annotate(s.details, "answer", outcome([]byte(e.Text(1)), e.Took))
	p.answered(s, e.Mono)
}

func (p *Perfetto) answered(s sent, end uint64) {
	at := p.machineRow(s.machine, s.at, end)
	p.begin(at, s.at, s.name, "qmp", s.details)
	p.end(at, end)
}

func (p *Perfetto) dispatch(e *event.Event) {
	at := p.row(track{kind: trackThread, pid: e.PID, tid: e.TID, name: e.Comm}, e.Mono-uint64(e.Took), e.Mono,
		func() uint64 { return p.process(e) })
	name := "handle " + strconv.Itoa(e.Int(0))
	if e.Kind == event.TimeoutDone {
		name = "timeout " + strconv.Itoa(e.Int(0))
	}
	p.begin(at, e.Mono-uint64(e.Took), name, "loop", annotate(nil, "file", e.FD))
	p.end(at, e.Mono)
}

func (p *Perfetto) machine(name string) uint64 { return p.machineRow(name, 0, 0) }

func (p *Perfetto) machineRow(name string, begin, end uint64) uint64 {
	name = cmp.Or(name, "unknown")
	return p.row(track{kind: trackMachine, name: name}, begin, end, func() uint64 {
		return p.row(track{kind: trackMachines}, 0, 0, nil)
	})
}

// process returns the track of an event's process.
func (p *Perfetto) process(e *event.Event) uint64 {
	return p.row(track{kind: trackProcess, pid: e.PID, name: e.Process()}, 0, 0, nil)
}

// row returns a track in which nothing is between two moments, and describes it when it
// is new, below another or none. An end of 0 is after all others; without a begin, too,
// nothing lasts.
func (p *Perfetto) row(t track, begin, end uint64, below func() uint64) uint64 {
	named := t
	if t.kind != trackMachine {
		t.name = "" // a process may change its name
	}
	r := p.tracks[t]
	if r == nil {
		if len(p.tracks) >= maxTracks {
			clear(p.tracks)
		}
		r = &rows{}
		p.tracks[t] = r
	}
	if begin > 0 && end == 0 {
		end = 1<<63 - 1
	}
	for i, last := range r.ends {
		if last <= begin || begin == 0 {
			r.ends[i] = max(last, end)
			return t.id(i)
		}
	}
	r.ends = append(r.ends, end)
	id := t.id(len(r.ends) - 1)
	var parent uint64
	if below != nil {
		parent = below()
	}
	p.describe(named, id, parent)
	return id
}

// id returns what names a row of a track in the whole trace.
func (t track) id(row int) uint64 { return hash(t.kind, t.name, key(t.pid), key(t.tid), key(row)) }

func hash(words ...string) uint64 {
	h := fnv.New64a()
	for _, w := range words {
		_, _ = io.WriteString(h, w+"\x00") // a hash does not fail
	}
	return h.Sum64()
}

func key(n int) string { return strconv.Itoa(n) }

// title returns how a track is shown.
func (t track) title() string {
	switch t.kind {
	case trackMachine, trackThread, trackProcess:
		return strings.ToValidUTF8(string(format.Short(nil, path.Clean(t.name), maxLabel)), "?")
	}
	return t.kind
}
