package format

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// Colours, as the digits of a terminal's SGR sequence.
const (
	dim    = 2
	red    = 31
	green  = 32
	yellow = 33
	blue   = 34
	cyan   = 36
)

// paint begins a colour; 0 ends it. Without colour it does nothing.
func (f *Writer) paint(b []byte, color byte) []byte {
	if !f.c.Color {
		return b
	}
	b = strconv.AppendUint(append(b, "\x1b["...), uint64(color), 10)
	return append(b, 'm')
}

// Columns of a line as text: the time takes 15, the side 2.
const (
	whoWidth = 26
	textMax  = 200 // bytes shown of a monitor's message
)

// text writes an event for people, here each message by itself:
//
//	15:04:05.123456 C> virsh[4711]        remote.domain_lookup_by_name(name="vm1")
//	15:04:05.123890 <S root virsh[4711]   remote.domain_lookup_by_name ok 402 µs dom={name="vm1", …}
func (f *Writer) text(e *event.Event) {
	switch e.Kind {
	case event.Warning:
		b := append(f.paint(f.buf, yellow), "warning: "...)
		f.buf = append(f.paint(Clean(b, e.Text(0)), 0), '\n')
		return
	case event.Lost:
		f.lost(e)
		return
	}
	f.daemons.see(e)
	if f.quiet(e) {
		return
	}
	n := len(f.buf)
	f.buf = append(f.clock.append(f.paint(f.buf, dim), e.Wall), ' ')
	f.buf = f.paint(f.buf, 0)
	switch {
	case e.Kind.RPC() && !f.c.Messages && libvirt.Type(e.Type).IsReply():
		f.call(e)
	case e.Kind.RPC():
		f.message(e)
	case e.Kind == event.MonitorSend || e.Kind == event.MonitorReply || e.Kind == event.MonitorEvent:
		f.monitor(e)
	case e.Kind == event.Gone:
		f.gone(e)
	case e.Kind.Notice():
		f.unanswered(e)
	default:
		if !f.other(e) {
			f.buf = f.buf[:n]
			return
		}
	}
	f.fit(n)
	f.buf = append(f.buf, '\n')
	if f.c.Tree && e.Kind.RPC() && libvirt.Type(e.Type).IsReply() && e.Call != nil {
		f.tree(e.Call)
	}
	f.stackLines(e, "                  ", true)
}

func (f *Writer) lost(e *event.Event) {
	b := strconv.AppendUint(f.paint(f.buf, red), e.Arg(0), 10)
	b = append(b, " events lost here"...)
	if e.Probe != "" {
		b = Clean(append(b, ": "...), e.Probe)
	}
	if e.PID != 0 {
		b = f.thread(append(b, " in "...), e)
	}
	f.buf = append(f.paint(b, 0), '\n')
}

// column pads what was appended since start to width characters.
func column(b []byte, start, width int) []byte {
	for n := utf8.RuneCount(b[start:]); n < width; n++ {
		b = append(b, ' ')
	}
	return append(b, ' ')
}

// subject appends who the line is about: of a message that the daemon saw, the
// client, else the process itself.
func (f *Writer) subject(b []byte, e *event.Event) []byte {
	start := len(b)
	if p := e.Peer; p != nil && e.Server() && (p.PID != 0 || p.Remote != "" || p.User != "" || p.TLSName != "" ||
		p.SASLName != "") {
		b = Client(b, p)
	} else {
		b = f.thread(b, e)
	}
	return column(b, start, whoWidth)
}

func (f *Writer) thread(b []byte, e *event.Event) []byte {
	b = Short(b, e.Comm, 16)
	return append(strconv.AppendInt(append(b, '['), int64(e.PID), 10), ']')
}

var sides = [...]string{
	event.ClientTx: "C> ", event.ClientRx: "C< ", event.ServerRx: ">S ", event.ServerTx: "<S ",
}

func (f *Writer) message(e *event.Event) {
	m := f.decode(e)
	b := append(f.paint(f.buf, blue), sides[e.Kind]...)
	b = f.daemon(f.subject(f.paint(b, 0), e), e)
	failed := m.Status == libvirt.Failed
	switch {
	case m.Type.IsCall():
		b = f.paint(b, cyan)
	case failed:
		b = f.paint(b, red)
	case m.Type == libvirt.Event:
		b = f.paint(b, green)
	}
	b = append(append(b, libvirt.ProgramName(e.Prog)...), '.')
	b = append(b, libvirt.ProcedureName(e.Prog, e.Proc)...)
	if !failed {
		b = f.paint(b, 0)
	}
	switch {
	case m.Type.IsCall():
		b = f.body(append(b, '('), m, e)
		b = append(b, ')')
	case m.Type.IsReply():
		b = f.outcome(b, m, e)
	default:
		b = append(append(b, ' '), m.Type.String()...)
		if m.Type != libvirt.Event {
			b = append(append(b, ' '), m.Status.String()...)
		}
		b = f.body(append(b, ' '), m, e)
	}
	if failed {
		b = f.paint(b, 0)
	}
	f.buf = b
}

// unanswered writes a call without an answer.
func (f *Writer) unanswered(e *event.Event) {
	m := f.decode(e)
	b := f.buf
	if f.c.Messages {
		b = append(f.paint(b, blue), map[bool]string{true: ">S ", false: "C> "}[e.Server()]...)
		b = f.paint(b, 0)
	}
	b = f.daemon(f.subject(b, e), e)
	b = append(append(f.paint(b, yellow), libvirt.ProgramName(e.Prog)...), '.')
	b = append(append(b, libvirt.ProcedureName(e.Prog, e.Proc)...), '(')
	b = append(f.body(b, m, e), ')')
	switch e.Kind {
	case event.CallSlow:
		b = took(append(b, " still runs after "...), e.Took)
	case event.CallOpen:
		b = took(append(b, " open for "...), e.Took)
	default:
		b = took(append(b, " not answered: the connection ended after "...), e.Took)
	}
	f.buf = f.paint(b, 0)
}

// Unread reports whether only the message's header is known.
func Unread(e *event.Event) bool {
	return e.NoPayload || e.Len == 0 || e.Payload == nil && e.PayloadLen > 0
}

// body appends the payload, or how much of it there was, and takes back a space
// before nothing.
func (f *Writer) body(b []byte, m *libvirt.Message, e *event.Event) []byte {
	n := len(b)
	if Unread(e) {
		if e.PayloadLen > 0 {
			b = append(strconv.AppendInt(append(b, '['), int64(e.PayloadLen), 10), " bytes]"...)
		}
	} else {
		b = m.AppendText(b, f.style)
	}
	if len(b) == n && b[n-1] == ' ' {
		b = b[:n-1]
	}
	return b
}

// monitor writes a message to or from QEMU: "> vm1 query-block(…)".
func (f *Writer) monitor(e *event.Event) {
	m := qmp.Parse([]byte(e.Text(1)))
	b := f.buf
	sign := map[event.Kind]string{
		event.MonitorSend: "Q> ", event.MonitorReply: "Q< ",
		event.MonitorEvent: "Q! ",
	}[e.Kind]
	b = append(f.paint(b, blue), sign...)
	b = f.paint(b, 0)
	start := len(b)
	if e.Domain != "" {
		b = Short(b, e.Domain, 64)
	} else {
		b = Pointer(b, e.Arg(0), 0)
	}
	b = f.daemon(column(b, start, whoWidth), e)
	b = f.qmp(b, &m, e.Text(1), e.Took)
	if e.Cut {
		b = append(b, "…"...)
	}
	if e.Kind == event.MonitorSend && len(e.Args) > 2 && e.Int(2) != -1 {
		b = strconv.AppendInt(append(b, " fd="...), int64(e.Int(2)), 10)
	}
	if c := e.Cause; c != nil {
		b = append(f.paint(b, dim), " for "...)
		b = append(b, libvirt.ProcedureName(c.Prog, c.Proc)...)
		b = strconv.AppendUint(append(b, " #"...), uint64(c.Serial), 10)
		if c.Peer != nil {
			b = Client(append(b, " of "...), c.Peer)
		}
		b = f.paint(b, 0)
	}
	f.buf = b
}

// qmp appends a message of the monitor: a command with its arguments, or how it
// went.
func (f *Writer) qmp(b []byte, m *qmp.Message, text string, d time.Duration) []byte {
	switch m.Kind {
	case qmp.Command, qmp.Event:
		color := byte(cyan)
		if m.Kind == qmp.Event {
			color = green
		}
		b = f.paint(Clean(f.paint(b, color), string(m.Name)), 0)
		if len(m.Body) > 0 {
			b = f.jsonBody(append(b, ' '), m)
		}
		return b
	case qmp.Failure:
		b = append(f.paint(b, red), "failed"...)
		if d > 0 {
			b = took(append(b, ' '), d)
		}
		b = Short(append(b, ' '), string(m.Class), 40)
		b = Short(append(b, ": "...), f.reason(m), 400)
		return f.paint(b, 0)
	case qmp.Reply:
		b = append(b, "ok"...)
		if d > 0 {
			b = took(append(b, ' '), d)
		}
		if len(m.Body) > 0 && string(m.Body) != "{}" {
			b = f.jsonBody(append(b, ' '), m)
		}
		return b
	}
	return f.limited(b, f.monitorText(nil, text))
}

// reason returns why a command of the monitor failed.
func (f *Writer) reason(m *qmp.Message) string {
	if f.c.Secrets {
		return string(m.Desc)
	}
	return string(qmp.AppendWithoutPasswords(nil, m.Desc, m.Cut))
}

// jsonBody appends a message's arguments, value or data.
func (f *Writer) jsonBody(b []byte, m *qmp.Message) []byte {
	text := m.Body
	if !f.c.Secrets {
		text = m.AppendMaskedBody(nil)
	}
	return f.limited(b, libvirt.AppendPrintable(nil, text))
}

// limited appends text, the beginning of it unless everything was asked for.
func (f *Writer) limited(b, text []byte) []byte {
	if f.c.Full || len(text) <= textMax {
		return append(b, text...)
	}
	n := textMax
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	b = append(append(b, text[:n]...), "…("...)
	return append(strconv.AppendInt(b, int64(len(text)), 10), " bytes)"...)
}

// tree writes, below a reply, the monitor commands that were sent for the call, and
// where its time went.
func (f *Writer) tree(c *event.Call) {
	const indent = "                "
	shares := [...]struct {
		name string
		d    time.Duration
	}{{"queue", c.Queue}, {"service", c.Service}, {"network", c.Network}}
	b := f.buf
	first := true
	for _, s := range shares {
		if s.d <= 0 {
			continue
		}
		if first {
			b = append(append(f.paint(b, dim), indent...), "├─ "...)
		} else {
			b = append(b, ", "...)
		}
		first = false
		b = took(append(append(b, s.name...), ' '), s.d)
	}
	if !first {
		b = append(f.paint(b, 0), '\n')
		if len(c.Monitor) == 0 {
			b = lastBranch(b, len(f.buf))
		}
	}
	for i := range c.Monitor {
		branch := "├─ "
		if i == len(c.Monitor)-1 {
			branch = "└─ "
		}
		b = f.command(append(append(b, indent...), branch...), &c.Monitor[i])
	}
	f.buf = b
}

// lastBranch makes the branch sign after start the last one's.
func lastBranch(b []byte, start int) []byte {
	for i := start; i+3 <= len(b); i++ {
		if string(b[i:i+3]) == "├" {
			copy(b[i:], "└")
			break
		}
	}
	return b
}

func (f *Writer) command(b []byte, c *event.Command) []byte {
	send := qmp.Parse([]byte(c.Text))
	if c.Domain != "" {
		b = append(Short(b, c.Domain, 64), ' ')
	}
	b = f.qmp(b, &send, c.Text, 0)
	switch {
	case c.Reply != "":
		reply := qmp.Parse([]byte(c.Reply))
		b = f.qmp(append(b, " → "...), &reply, c.Reply, c.Took)
	case c.Took > 0:
		b = took(append(b, " → "...), c.Took)
	default:
		b = append(b, " → no answer"...)
	}
	return append(b, '\n')
}

func (f *Writer) gone(e *event.Event) {
	b := f.thread(append(f.paint(f.buf, dim), "   "...), e)
	f.buf = f.paint(append(b, " has gone"...), 0)
}

// other writes an event that is no message. It reports false for kinds that
// text does not show.
func (f *Writer) other(e *event.Event) bool {
	d, ok := described[e.Kind]
	if !ok {
		return false
	}
	at := "   " // sockets, TLS and keepalive are the same on both sides
	switch {
	case e.Kind.Server():
		at = " S "
	case e.Kind == event.ClientNew || e.Kind == event.ClientFree:
		at = "C  "
	}
	b := f.subject(append(f.buf, at...), e)
	b = append(f.paint(b, d.color), d.verb...)
	b = f.paint(b, 0)
	for _, a := range d.args {
		b = appendArgument(b, e, a)
	}
	if e.Domain != "" {
		b = Short(append(b, ' '), e.Domain, 64)
	}
	switch e.Kind {
	case event.ClientNew, event.ServerNew, event.ClientFree, event.ServerFree:
		a := f.socks.of(e)
		b = Pointer(append(b, ' '), e.Arg(0), 0)
		b = Clean(append(b, " local="...), a.local)
		b = Clean(append(b, " remote="...), a.remote)
	}
	if e.FD != "" {
		b = append(Short(append(b, " ("...), e.FD, 120), ')')
	}
	if e.Took > 0 {
		b = took(append(b, ' '), e.Took)
	}
	f.buf = b
	return true
}

// appendArgument appends name=value, as text.
func appendArgument(b []byte, e *event.Event, a argument) []byte {
	i := arg(e, a.at)
	if i >= len(e.Args) {
		return b
	}
	if (a.name == "watch" || a.name == "timer") && a.form == number {
		return strconv.AppendInt(append(b, ' '), int64(e.Int(i)), 10)
	}
	if a.form == every {
		return appendEvery(append(b, ' '), e.Int(i))
	}
	b = append(append(append(b, ' '), a.name...), '=')
	switch a.form {
	case address:
		return Pointer(b, e.Arg(i), 0)
	case words:
		return Short(b, e.Text(i), 200)
	case mask:
		return appendWatched(b, e.Arg(i))
	}
	if n := e.Int(i); a.name == "authtype" && n >= 0 && n < len(authTypes) {
		return append(b, authTypes[n]...)
	}
	return strconv.AppendInt(b, int64(e.Int(i)), 10)
}

// appendEvery appends how often a timeout is called, from milliseconds.
func appendEvery(b []byte, ms int) []byte {
	switch {
	case ms < 0:
		return append(b, "off"...)
	case ms == 0:
		return append(b, "at once"...)
	}
	return took(append(b, "every "...), time.Duration(ms)*time.Millisecond)
}

func appendWatched(b []byte, bits uint64) []byte {
	n := len(b)
	for i, name := range watched {
		if bits&(1<<i) != 0 {
			if len(b) > n {
				b = append(b, '|')
			}
			b = append(b, name...)
		}
	}
	if len(b) == n {
		b = append(b, "none"...)
	}
	return b
}
