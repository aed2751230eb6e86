package format

import (
	"strconv"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/qmp"
)

// elapsed begins a line of STP: seconds and milliseconds since the trace began,
// as "%3d.%03d ".
func (f *Writer) elapsed(mono uint64) []byte {
	ms := mono / 1e6
	ms -= min(f.begin, ms)
	b := padNumber(f.buf, ms/1000, 3, ' ')
	b = padNumber(append(b, '.'), ms%1000, 3, '0')
	return append(b, ' ')
}

func padNumber(dst []byte, n uint64, width int, fill byte) []byte {
	var digits [20]byte
	s := strconv.AppendUint(digits[:0], n, 10)
	for range width - len(s) {
		dst = append(dst, fill)
	}
	return append(dst, s...)
}

// Pointer appends an address as %p does, and pads it to width.
func Pointer(dst []byte, p uint64, width int) []byte {
	n := len(dst)
	dst = strconv.AppendUint(append(dst, "0x"...), p, 16)
	for len(dst)-n < width {
		dst = append(dst, ' ')
	}
	return dst
}

// stp writes an event as libvirt's example scripts do. What they do not show is
// left out.
func (f *Writer) stp(e *event.Event) {
	n := len(f.buf)
	switch k := e.Kind; {
	case k.RPC():
		f.stpMessage(e)
	case k == event.ClientNew, k == event.ClientFree, k == event.ServerNew, k == event.ServerFree:
		f.stpConnection(e)
	case k == event.SocketSendFD || k == event.SocketRecvFD:
		b := Pointer(append(f.elapsed(e.Mono), "=   "...), e.Arg(0), 16)
		b = append(b, map[event.Kind]string{event.SocketSendFD: " send fd=", event.SocketRecvFD: " recv fd="}[k]...)
		f.buf = append(strconv.AppendInt(b, int64(e.Int(1)), 10), '\n')
	case k == event.MonitorSend || k == event.MonitorReply || k == event.MonitorEvent:
		f.stpMonitor(e)
	case k >= event.HandleAdd && k <= event.PollRun:
		f.stpLoop(e)
	}
	if len(f.buf) > n {
		f.stackLines(e, "", false)
	}
}

var stpSides = map[event.Kind]string{
	event.ClientTx: "C > ", event.ClientRx: "C < ", event.ServerRx: "> S ", event.ServerTx: "< S ",
	event.ClientNew: "C + ", event.ClientFree: "C - ", event.ServerNew: "+ S ", event.ServerFree: "- S ",
}

func (f *Writer) stpMessage(e *event.Event) {
	if e.Len == 0 {
		return
	}
	b := append(f.elapsed(e.Mono), stpSides[e.Kind]...)
	b = Pointer(b, e.Client, 16)
	b = append(b, " msg="...)
	b = append(b, stpProgram(e)...)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(e.Vers), 10)
	b = append(b, '.')
	b = append(b, stpProcedure(e)...)
	b = append(b, '(')
	b = append(b, stpType(e)...)
	b = append(b, ", "...)
	b = append(b, stpStatus(e)...)
	b = append(b, ", "...)
	b = strconv.AppendInt(b, int64(int32(e.Serial)), 10)
	b = append(b, ") len="...)
	f.buf = append(strconv.AppendInt(b, int64(e.Len), 10), '\n')
}

// The tapset's names. What has none is "unknown:NUMBER" there.

func stpProgram(e *event.Event) string {
	if p, _ := libvirt.Lookup(e.Prog, 0); p != nil {
		return p.Name
	}
	return unknown(int64(e.Prog))
}

func stpProcedure(e *event.Event) string {
	if _, p := libvirt.Lookup(e.Prog, e.Proc); p != nil {
		return p.Name
	}
	return unknown(int64(e.Proc))
}

func stpType(e *event.Event) string {
	if t := libvirt.Type(e.Type); t <= libvirt.StreamHole {
		return t.String()
	}
	return unknown(int64(e.Type))
}

func stpStatus(e *event.Event) string {
	if s := libvirt.Status(e.Status); s <= libvirt.Continue {
		return s.String()
	}
	return unknown(int64(e.Status))
}

func unknown(n int64) string { return "unknown:" + strconv.FormatInt(n, 10) }

func (f *Writer) stpConnection(e *event.Event) {
	if (e.Kind == event.ClientFree || e.Kind == event.ServerFree) && !last(e) {
		return
	}
	a := f.socks.of(e)
	b := append(f.elapsed(e.Mono), stpSides[e.Kind]...)
	b = Pointer(b, e.Arg(0), 16)
	b = Clean(append(b, " local="...), a.local)
	b = Clean(append(b, " remote="...), a.remote)
	f.buf = append(b, '\n')
}

func (f *Writer) stpMonitor(e *event.Event) {
	b := append(f.elapsed(e.Mono), map[event.Kind]string{
		event.MonitorSend: "> ", event.MonitorReply: "< ",
		event.MonitorEvent: "! ",
	}[e.Kind]...)
	b = append(Pointer(b, e.Arg(0), 0), ' ')
	b = f.monitorText(b, e.Text(1))
	if e.Cut {
		b = append(b, "…"...)
	}
	if e.Kind == event.MonitorSend && len(e.Args) > 2 && e.Int(2) != -1 {
		b = append(b, " (fd="...)
		b = append(strconv.AppendInt(b, int64(e.Int(2)), 10), ')')
	}
	f.buf = append(b, '\n')
}

// monitorText appends a monitor's message without its line end.
func (f *Writer) monitorText(dst []byte, msg string) []byte {
	for len(msg) > 0 && (msg[len(msg)-1] == '\n' || msg[len(msg)-1] == '\r') {
		msg = msg[:len(msg)-1]
	}
	if f.c.Secrets {
		return Clean(dst, msg)
	}
	return Clean(dst, string(qmp.AppendMasked(nil, []byte(msg))))
}

var stpLoops = map[event.Kind]struct {
	sign string
	args int
}{
	event.HandleAdd:       {"+ handle", 3},
	event.HandleUpdate:    {"* handle", 2},
	event.HandleRemove:    {"- handle", 1},
	event.HandleIdle:      {"! handle", 1},
	event.HandleDispatch:  {"> handle", 2},
	event.TimeoutAdd:      {"+ timeout", 2},
	event.TimeoutUpdate:   {"* timeout", 2},
	event.TimeoutRemove:   {"- timeout", 1},
	event.TimeoutIdle:     {"! timeout", 1},
	event.TimeoutDispatch: {"> timeout", 1},
	event.PollRun:         {"~", 2},
}

func (f *Writer) stpLoop(e *event.Event) {
	l := stpLoops[e.Kind]
	b := strconv.AppendInt(f.elapsed(e.Mono), int64(e.PID), 10)
	b = append(append(b, ' '), l.sign...)
	for i := range l.args {
		b = strconv.AppendInt(append(b, ' '), int64(e.Int(i)), 10)
	}
	f.buf = append(b, '\n')
}
