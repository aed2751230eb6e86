package format

import (
	"strconv"
	"time"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// schema is the version of the JSON lines that schema.md describes. It changes
// only when a reader of the old ones would be misled.
const schema = 1

// An object under construction: b.key("x") and then the value. The comma is
// put where one is needed.
type object []byte

func (o object) key(name string) object {
	if c := o[len(o)-1]; c != '{' && c != '[' {
		o = append(o, ',')
	}
	o = append(append(o, '"'), name...)
	return append(o, `":`...)
}

func (o object) text(name, s string) object {
	o = append(o.key(name), '"')
	return append(libvirt.AppendJSONText(o, s), '"')
}

// some is text for a member that is left out when empty.
func (o object) some(name, s string) object {
	if s == "" {
		return o
	}
	return o.text(name, s)
}

func (o object) num(name string, n int64) object { return strconv.AppendInt(o.key(name), n, 10) }

func (o object) someNum(name string, n int64) object {
	if n == 0 {
		return o
	}
	return o.num(name, n)
}

func (o object) address(name string, p uint64) object {
	return append(Pointer(append(o.key(name), '"'), p, 0), '"')
}

func (o object) yes(name string, b bool) object {
	if !b {
		return o
	}
	return append(o.key(name), "true"...)
}

// micros writes a duration in microseconds, with the nanoseconds as decimals.
func (o object) micros(name string, d time.Duration) object {
	if d <= 0 {
		return o
	}
	return appendMicros(o.key(name), d)
}

func appendMicros(b []byte, d time.Duration) []byte {
	b = strconv.AppendInt(b, int64(d/1000), 10)
	if ns := uint64(d % 1000); ns != 0 {
		b = padNumber(append(b, '.'), ns, 3, '0')
	}
	return b
}

func (o object) time(name string, t time.Time) object {
	o = append(o.key(name), '"')
	return append(t.UTC().AppendFormat(o, "2006-01-02T15:04:05.000000Z"), '"')
}

func (f *Writer) beginJSON(mono uint64, wall time.Time) {
	o := object(append(f.buf, '{')).text("event", "begin").num("schema", schema).time("time", wall)
	f.buf = append(o.num("mono", int64(mono)), '}', '\n')
}

func (f *Writer) endJSON(seen uint64, losses []event.Loss) {
	o := object(append(f.buf, '{')).text("event", "end").num("seen", int64(seen))
	o = append(o.key("lost"), '[')
	for i := range losses {
		l := &losses[i]
		if i > 0 {
			o = append(o, ',')
		}
		o = append(o, '{')
		o = o.num("count", int64(l.Lost)).some("probe", l.Probe).someNum("pid", int64(l.PID)).some("comm", l.Comm)
		o = append(o, '}')
	}
	f.buf = append(o, ']', '}', '\n')
}

// json writes an event as one line of JSON: schema.md.
func (f *Writer) json(e *event.Event) {
	start := len(f.buf)
	o := object(append(f.buf, '{'))
	head := func(name string) {
		o = o.text("event", name)
		o = append(f.clock.timestamp(append(o.key("time"), '"'), e.Wall), '"')
		o = o.num("mono", int64(e.Mono)).someNum("pid", int64(e.PID)).someNum("tid", int64(e.TID)).some("comm", e.Comm)
	}
	switch k := e.Kind; {
	case k.RPC():
		head("message")
		o = f.jsonMessage(o, e)
	case k == event.MonitorSend || k == event.MonitorReply || k == event.MonitorEvent:
		head(monitorNames[k])
		o = f.jsonMonitor(o, e)
	case k == event.Gone:
		head("process.gone")
	case k.Notice():
		head(Name(k))
		o = f.jsonOpen(o, e)
	case k == event.Warning:
		head("warning")
		o = o.text("text", e.Text(0))
	case k == event.Lost:
		head("lost")
		o = o.num("count", int64(e.Arg(0))).some("probe", e.Probe)
	default:
		d, ok := described[k]
		if !ok {
			f.buf = f.buf[:start]
			return
		}
		head(d.name)
		o = f.jsonOther(o, e, &d)
	}
	o = jsonStack(o, e)
	f.buf = append(o, '}', '\n')
}

var monitorNames = map[event.Kind]string{
	event.MonitorSend: "monitor.command", event.MonitorReply: "monitor.reply", event.MonitorEvent: "monitor.event",
}

var noticeNames = map[event.Kind]string{
	event.CallSlow: "call.slow", event.CallOpen: "call.open", event.CallUnanswered: "call.unanswered",
}

// Side returns the side of a connection that saw a message: client or server.
func Side(k event.Kind) string {
	if k.Server() {
		return "server"
	}
	return "client"
}

// sideOf returns the side of a connection that an event is of.
func sideOf(e *event.Event) string {
	if e.Server() {
		return "server"
	}
	return "client"
}

// jsonOpen writes a call without an answer.
func (f *Writer) jsonOpen(o object, e *event.Event) object {
	m := f.decode(e)
	o = f.jsonHeader(o.text("side", sideOf(e)), e, m)
	o = jsonDomain(f.jsonPayload(o, m, e), e, m)
	return f.jsonPeer(o.micros("age_us", e.Took), e.Peer)
}

func (f *Writer) jsonMessage(o object, e *event.Event) object {
	m := f.decode(e)
	o = o.text("side", Side(e.Kind)).text("direction", map[bool]string{true: "in", false: "out"}[e.Kind.Rx()])
	o = f.jsonHeader(o, e, m)
	o = jsonDomain(f.jsonPayload(o, m, e), e, m)
	o = o.micros("took_us", e.Took)
	o = f.jsonPeer(o, e.Peer)
	if e.Call != nil && m.Type.IsReply() {
		o = f.jsonCall(o, e.Call)
	}
	return o
}

func (f *Writer) jsonHeader(o object, e *event.Event, m *libvirt.Message) object {
	o = o.address("connection", e.Client).num("length", int64(e.Len))
	o = o.text("program", libvirt.ProgramName(e.Prog)).num("version", int64(e.Vers))
	o = o.text("procedure", libvirt.ProcedureName(e.Prog, e.Proc))
	o = o.num("program_number", int64(e.Prog)).num("procedure_number", int64(e.Proc))
	o = o.text("type", m.Type.String())
	if !e.Kind.Notice() {
		o = o.text("status", m.Status.String())
	}
	return o.num("serial", int64(e.Serial))
}

func jsonDomain(o object, e *event.Event, m *libvirt.Message) object {
	if d := m.Domain(); d.Kind != libvirt.ObjectNone && !Unread(e) {
		o = append(o.key("domain"), '{')
		if d.Name != nil {
			o = o.text("name", string(d.Name[:min(len(d.Name), 256)]))
		}
		if len(d.UUID) == 16 {
			o = append(libvirt.AppendUUID(append(o.key("uuid"), '"'), d.UUID), '"')
		}
		if d.ID >= 0 {
			o = o.num("id", int64(d.ID))
		}
		o = append(o, '}')
	}
	return o
}

// parts are the members that a payload is written to.
var parts = [...]string{
	libvirt.Args: "args", libvirt.Ret: "ret", libvirt.Notice: "data", libvirt.Error: "error",
	libvirt.Hole: "hole",
}

func (f *Writer) jsonPayload(o object, m *libvirt.Message, e *event.Event) object {
	if Unread(e) {
		return o.yes("no_payload", true)
	}
	switch m.Part {
	case libvirt.Nothing:
	case libvirt.Data:
		o = o.num("stream_bytes", int64(m.Size))
	default:
		o = m.AppendJSON(o.key(parts[m.Part]), f.style)
	}
	o = o.someNum("fds", int64(m.FDs)).someNum("omitted", int64(m.Omitted)).yes("malformed", m.Malformed)
	if m.Part != libvirt.Data {
		o = o.someNum("cut_bytes", int64(m.Missing))
	}
	return o.someNum("unknown_bytes", int64(m.Trailing))
}

func (f *Writer) jsonPeer(o object, p *event.Peer) object {
	if p == nil {
		return o
	}
	o = append(o.key("peer"), '{')
	o = o.someNum("pid", int64(p.PID))
	if p.PID != 0 && p.UID >= 0 {
		o = o.num("uid", int64(p.UID))
	}
	o = o.some("user", p.User).someNum("start", int64(p.Start)).someNum("session", int64(p.Session))
	command := p.Command
	if !f.c.Secrets {
		command = MaskCommand(command)
	}
	o = o.some("command", command).some("local", p.Local).some("remote", p.Remote)
	o = o.some("tls_name", p.TLSName).some("sasl_name", p.SASLName).some("selinux", p.SELinux)
	return append(o.someNum("via", int64(p.Via)), '}')
}

func (f *Writer) jsonCall(o object, c *event.Call) object {
	o = o.micros("queue_us", c.Queue).micros("service_us", c.Service).micros("network_us", c.Network)
	if len(c.Monitor) == 0 {
		return o
	}
	o = append(o.key("monitor"), '[')
	for i := range c.Monitor {
		x := &c.Monitor[i]
		if i > 0 {
			o = append(o, ',')
		}
		o = append(o, '{')
		o = o.address("monitor", x.Monitor).some("machine", x.Domain).some("id", x.ID)
		send := qmp.Parse([]byte(x.Text))
		o = f.jsonQMP(o, &send, x.Text)
		o = o.micros("took_us", x.Took)
		if x.Reply != "" {
			reply := qmp.Parse([]byte(x.Reply))
			o = append(o.key("reply"), '{')
			o = append(f.jsonQMP(o, &reply, x.Reply), '}')
		}
		o = append(o, '}')
	}
	return append(o, ']')
}

func (f *Writer) jsonMonitor(o object, e *event.Event) object {
	m := qmp.Parse([]byte(e.Text(1)))
	o = o.address("monitor", e.Arg(0)).some("machine", e.Domain)
	if m.ID != nil {
		o = o.text("id", string(m.ID[:min(len(m.ID), 256)]))
	}
	o = f.jsonQMP(o, &m, e.Text(1)).yes("cut", e.Cut)
	if e.Kind == event.MonitorSend && len(e.Args) > 2 && e.Int(2) != -1 {
		o = o.num("fd", int64(e.Int(2)))
	}
	o = o.micros("took_us", e.Took)
	if c := e.Cause; c != nil {
		o = append(o.key("cause"), '{')
		o = o.text("program", libvirt.ProgramName(c.Prog)).text("procedure", libvirt.ProcedureName(c.Prog, c.Proc))
		o = o.num("serial", int64(c.Serial)).address("connection", c.Client)
		o = append(f.jsonPeer(o, c.Peer), '}')
	}
	return o
}

// jsonQMP writes a monitor's message: its name, or how it went, and its body as
// a string, which is JSON unless it was shortened.
func (f *Writer) jsonQMP(o object, m *qmp.Message, text string) object {
	body := func(name string) object {
		if len(m.Body) == 0 {
			return o
		}
		b := m.Body
		if !f.c.Secrets {
			b = m.AppendMaskedBody(nil)
		}
		return o.text(name, string(f.limited(nil, b)))
	}
	switch m.Kind {
	case qmp.Command:
		o = o.text("command", string(m.Name))
		return body("arguments")
	case qmp.Event:
		o = o.text("name", string(m.Name))
		if m.Seconds != 0 {
			o = o.time("sent", time.Unix(m.Seconds, m.Micros*1000))
		}
		return body("data")
	case qmp.Failure:
		o = append(o.key("error"), '{')
		return append(o.text("class", string(m.Class)).text("desc", f.reason(m)), '}')
	case qmp.Reply:
		return body("return")
	}
	return o.text("text", string(f.limited(nil, f.monitorText(nil, text))))
}

func (f *Writer) jsonOther(o object, e *event.Event, d *description) object {
	switch e.Kind {
	case event.ClientNew, event.ServerNew, event.ClientFree, event.ServerFree:
		a := f.socks.of(e)
		o = o.text("side", Side(e.Kind)).address("connection", e.Arg(0)).text("local", a.local).text("remote",
			a.remote)
	default:
		if e.Client != 0 {
			o = o.address("connection", e.Client)
		}
	}
	for _, a := range d.args {
		i := arg(e, a.at)
		if i >= len(e.Args) {
			continue
		}
		switch n := e.Int(i); {
		case a.form == address:
			o = o.address(a.name, e.Arg(i))
		case a.form == words:
			o = o.text(a.name, e.Text(i))
		case a.form == mask:
			o = o.text(a.name, string(appendWatched(nil, e.Arg(i))))
		case a.name == "authtype" && n >= 0 && n < len(authTypes):
			o = o.text(a.name, authTypes[n])
		default:
			o = o.num(a.name, int64(n))
		}
	}
	return f.jsonPeer(o.some("fd_target", e.FD).micros("took_us", e.Took), e.Peer)
}

func jsonStack(o object, e *event.Event) object {
	if e.Frames == nil {
		return o
	}
	o = append(o.key("stack"), '[')
	for i := range e.Frames {
		fr := &e.Frames[i]
		if i > 0 {
			o = append(o, ',')
		}
		o = append(o, '{')
		o = o.address("address", fr.PC).some("symbol", fr.Symbol)
		if fr.Size > 0 {
			o = o.address("start", fr.Start).num("offset", int64(fr.Offset)).num("size", int64(fr.Size))
		}
		o = o.some("module", fr.Module)
		if fr.Module != "" {
			o = o.address("module_offset", fr.ModuleOffset).some("build_id", fr.BuildID)
		}
		o = o.some("file", fr.File).someNum("line", int64(fr.Line))
		o = append(o, '}')
	}
	return append(o, ']')
}
