package export

import (
	"cmp"
	"encoding/binary"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/format"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// Profile gathers the stacks of events into a profile as pprof reads it. Each event
// with a stack counts once. The time of a call is given to the stack that made it
// on the client, and to the one that answered it on the daemon; that of a monitor
// command to the stack that sent it; that of a dispatch to its beginning. The zero
// Profile works; it is a sink of a session, not safe for concurrent use.
type Profile struct {
	p           profile.Profile
	samples     map[string]*profile.Sample
	locations   map[event.Frame]*profile.Location
	functions   map[function]*profile.Function
	mappings    map[module]*profile.Mapping
	calls       map[*event.Call]*profile.Sample
	commands    map[event.Pointer]*profile.Sample // by monitor
	dispatches  map[int]*profile.Sample           // by thread
	first, last time.Time
	key         []byte
}

// module is a file, whatever address it is mapped at.
type module struct {
	path, id string
	size     uint64
}

// function is one of a module, with the source file that its code in a location is of.
type function struct{ module, name, file string }

// maxLabel is how many bytes of a label are kept.
const maxLabel = 200

// maxOpen bounds how many calls, commands and dispatches are remembered whose end
// has not been seen.
const maxOpen = 1 << 16

// Event adds an event.
func (p *Profile) Event(e *event.Event) error {
	if p.samples == nil {
		p.samples, p.locations = map[string]*profile.Sample{}, map[event.Frame]*profile.Location{}
		p.functions, p.mappings = map[function]*profile.Function{}, map[module]*profile.Mapping{}
		p.calls, p.commands, p.dispatches = map[*event.Call]*profile.Sample{}, map[event.Pointer]*profile.Sample{},
			map[int]*profile.Sample{}
		p.first = e.Wall
	}
	p.last = e.Wall
	var s *profile.Sample
	if len(e.Frames) > 0 {
		s = p.sample(e)
		s.Value[0]++
	}
	switch k, at := e.Kind, e.Pointer(0); {
	case k == event.ServerTx:
		spend(s, e.Took)
	case k == event.ClientTx && e.Call != nil:
		remember(p.calls, e.Call, s)
	case k == event.ClientRx && e.Call != nil:
		spend(p.calls[e.Call], e.Took)
		delete(p.calls, e.Call)
	case k == event.CallOpen || k == event.CallUnanswered:
		spend(p.calls[e.Call], e.Took)
		delete(p.calls, e.Call)
	case k == event.MonitorSend:
		remember(p.commands, at, s)
	case k == event.MonitorReply:
		spend(p.commands[at], e.Took)
		delete(p.commands, at)
	case k == event.HandleDispatch || k == event.TimeoutDispatch:
		remember(p.dispatches, e.TID, s)
	case k == event.HandleDone || k == event.TimeoutDone:
		spend(p.dispatches[e.TID], e.Took)
		delete(p.dispatches, e.TID)
	}
	return nil
}

// Idle implements a session's sink.
func (p *Profile) Idle() error { return nil }

// Samples returns how many events have had a stack.
func (p *Profile) Samples() int64 {
	var n int64
	for _, s := range p.p.Sample {
		n += s.Value[0]
	}
	return n
}

func spend(s *profile.Sample, d time.Duration) {
	if s != nil {
		s.Value[1] += int64(d)
	}
}

func remember[K comparable](m map[K]*profile.Sample, k K, s *profile.Sample) {
	if len(m) >= maxOpen {
		clear(m)
	}
	m[k] = s
}

// sample returns what counts events with the stack and the labels of e.
func (p *Profile) sample(e *event.Event) *profile.Sample {
	s := &profile.Sample{
		Value: []int64{0, 0}, Label: map[string][]string{},
		NumLabel: map[string][]int64{"pid": {int64(e.PID)}},
	}
	p.key = binary.AppendVarint(p.key[:0], int64(e.PID))
	label := func(name, value string) {
		value = string(format.Short(nil, value, maxLabel))
		if value != "" {
			s.Label[name] = []string{value}
		}
		p.key = append(append(p.key, value...), 0)
	}
	label("thread", e.Comm)
	switch {
	case e.Kind.RPC():
		label("event", libvirt.Type(e.Type).String())
		label("side", format.Side(e.Kind))
		label("procedure", libvirt.ProgramName(e.Prog)+"."+libvirt.ProcedureName(e.Prog, e.Proc))
	case e.Kind == event.MonitorSend || e.Kind == event.MonitorReply || e.Kind == event.MonitorEvent:
		m := qmp.Parse([]byte(e.Text(1)))
		label("event", format.Name(e.Kind))
		label("procedure", string(m.Name))
		label("machine", e.Domain)
	default:
		label("event", format.Name(e.Kind))
	}
	if c := e.Peer; c != nil && e.Kind.Server() {
		label("user", string(format.Identity(nil, c)))
		label("command", format.MaskCommand(c.Command))
	}
	for i := range e.Frames {
		l := p.location(&e.Frames[i], i > 0)
		s.Location = append(s.Location, l)
		p.key = binary.AppendUvarint(p.key, l.ID)
	}
	if known := p.samples[string(p.key)]; known != nil {
		return known
	}
	p.samples[string(p.key)] = s
	p.p.Sample = append(p.p.Sample, s)
	return s
}

// location returns the place of a frame. That of a caller is the call, which is
// before where it returns to.
func (p *Profile) location(f *event.Frame, caller bool) *profile.Location {
	at, m := *f, p.mapping(f)
	if m != nil {
		at.PC = m.Start + f.ModuleOffset // where another process has it
	}
	if caller {
		at.PC--
	}
	l := p.locations[at]
	if l != nil {
		return l
	}
	l = &profile.Location{ID: uint64(len(p.locations) + 1), Mapping: m, Address: at.PC}
	if fn := p.function(f); fn != nil {
		l.Line = []profile.Line{{Function: fn, Line: int64(f.Line)}}
	}
	if f.File != "" && m != nil {
		m.HasFilenames, m.HasLineNumbers = true, true
	}
	p.locations[at] = l
	p.p.Location = append(p.p.Location, l)
	return l
}

func (p *Profile) mapping(f *event.Frame) *profile.Mapping {
	if f.Module == "" {
		return nil
	}
	key := module{f.Module, f.BuildID, f.ModuleSize}
	m := p.mappings[key]
	if m == nil {
		start := f.PC - f.ModuleOffset
		m = &profile.Mapping{
			ID: uint64(len(p.mappings) + 1), Start: start, Limit: start + f.ModuleSize,
			File: string(format.Clean(nil, f.Module)), BuildID: f.BuildID, HasFunctions: true,
		}
		p.mappings[key] = m
		p.p.Mapping = append(p.p.Mapping, m)
	}
	return m
}

// function returns a frame's function; one without a name is called by where it
// begins in its module.
func (p *Profile) function(f *event.Frame) *profile.Function {
	name := string(format.Clean(nil, f.Symbol))
	if f.Size == 0 {
		return nil
	}
	if name == "" {
		name = path.Base(string(format.Clean(nil, f.Module))) + "+0x" + strconv.FormatUint(f.Start, 16)
	}
	key := function{f.Module, name, string(format.Clean(nil, f.File))}
	fn := p.functions[key]
	if fn == nil {
		fn = &profile.Function{ID: uint64(len(p.functions) + 1), Name: name, SystemName: name, Filename: key.file}
		p.functions[key] = fn
		p.p.Function = append(p.p.Function, fn)
	}
	return fn
}

// Write writes the profile, packed, as go tool pprof takes it.
func (p *Profile) Write(w io.Writer) error {
	p.p.SampleType = []*profile.ValueType{{Type: "events", Unit: "count"}, {Type: "time", Unit: "nanoseconds"}}
	p.p.PeriodType, p.p.Period = p.p.SampleType[0], 1
	p.p.TimeNanos, p.p.DurationNanos = p.first.UnixNano(), int64(p.last.Sub(p.first))
	if err := p.p.CheckValid(); err != nil {
		return err
	}
	return p.p.Write(w)
}

// Each calls do for each stack with its events and their time: the process, the
// functions from the outermost on, and the kind of event. The path stands until do
// returns.
func (p *Profile) Each(do func(path []string, events int64, took time.Duration)) {
	var path []string
	for _, s := range p.p.Sample {
		path = append(path[:0], processOf(s))
		for _, l := range slices.Backward(s.Location) {
			name := "0x" + strconv.FormatUint(l.Address, 16)
			if len(l.Line) > 0 {
				name = l.Line[0].Function.Name
			}
			path = append(path, name)
		}
		do(append(path, kindOf(s)), s.Value[0], time.Duration(s.Value[1]))
	}
}

// processOf returns the name of the process that a stack is of.
func processOf(s *profile.Sample) string {
	e := event.Event{Comm: strings.Join(s.Label["thread"], "")}
	return cmp.Or(e.Process(), "unknown")
}

// kindOf returns in brackets what kind of event a stack was seen at.
func kindOf(s *profile.Sample) string {
	words := slices.Concat(s.Label["procedure"], s.Label["event"])
	return "[" + strings.Join(words, " ") + "]"
}
