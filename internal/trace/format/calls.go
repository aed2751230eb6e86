package format

import (
	"strconv"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// answer names the reply of a call, which both sides see.
type answer struct {
	begin  uint64
	pid    int
	client uint64
	serial uint32
}

func answerOf(c *event.Call) answer { return answer{c.Begin, c.PID, c.Client, c.Serial} }

// setup are the procedures by which a client opens and closes a connection.
var setup = map[string]bool{
	"connect_open": true, "connect_close": true, "connect_supports_feature": true, "connect_set_identity": true,
	"auth_list": true, "auth_polkit": true, "auth_sasl_init": true, "auth_sasl_start": true, "auth_sasl_step": true,
}

// quiet reports whether an event gets no line of its own: unless asked for, a call is
// one line, and what only keeps connections going is not shown.
func (f *Writer) quiet(e *event.Event) bool {
	if e.Kind.RPC() {
		return f.quietMessage(e)
	}
	if f.c.Verbose {
		return false
	}
	switch k := e.Kind; {
	case k == event.AuthDeny, k == event.AuthFail, k == event.TLSDeny, k == event.TLSFail,
		k == event.TLSHandshakeFail, k == event.KeepaliveTimeout:
		return false
	case k.Notice():
		return f.isSetup(e)
	}
	return e.Kind >= event.ClientNew && e.Kind <= event.KeepaliveRecv
}

func (f *Writer) quietMessage(e *event.Event) bool {
	t := libvirt.Type(e.Type)
	if !f.c.Verbose && (f.isSetup(e) && libvirt.Status(e.Status) != libvirt.Failed ||
		libvirt.ProgramName(e.Prog) == "keepalive") {
		return true
	}
	switch {
	case f.c.Messages || t == libvirt.Event:
		return false
	case !t.IsReply():
		return true
	case e.Call == nil || !e.Call.Served:
		return false
	}
	key := answerOf(e.Call)
	if e.Kind.Server() {
		event.Bound(f.answered)
		f.answered[key] = true
		return e.Call.Forwarded && !f.c.Verbose // the daemon that does it has a line of the same client
	}
	shown := f.answered[key]
	delete(f.answered, key)
	return shown
}

func (f *Writer) isSetup(e *event.Event) bool {
	return libvirt.ProgramName(e.Prog) == "remote" && setup[libvirt.ProcedureName(e.Prog, e.Proc)]
}

// call writes a call and its reply e as one line:
//
//	15:04:05.123890 root virsh[4711]           remote.domain_lookup_by_name(name="vm1") ok 402 µs dom={name="vm1", …}
func (f *Writer) call(e *event.Event) {
	b := f.daemon(f.subject(f.buf, e), e)
	failed := libvirt.Status(e.Status) == libvirt.Failed
	color := byte(cyan)
	if failed {
		color = red
	}
	b = append(append(f.paint(b, color), libvirt.ProgramName(e.Prog)...), '.')
	b = append(b, libvirt.ProcedureName(e.Prog, e.Proc)...)
	if !failed {
		b = f.paint(b, 0)
	}
	if c := e.Call; c != nil {
		b = append(b, '(')
		if c.Args != nil || c.ArgsLen == 0 {
			b = f.dec.Arguments(c).AppendText(b, f.style)
		} else {
			b = append(strconv.AppendInt(append(b, '['), int64(c.ArgsLen), 10), " bytes]"...)
		}
		b = append(b, ')')
	}
	b = f.outcome(b, f.decode(e), e)
	if failed {
		b = f.paint(b, 0)
	}
	f.buf = b
}

// outcome appends how a call went.
func (f *Writer) outcome(b []byte, m *libvirt.Message, e *event.Event) []byte {
	if m.Status == libvirt.Failed {
		b = append(b, " failed"...)
	} else {
		b = append(b, " ok"...)
	}
	if e.Took > 0 {
		b = took(append(b, ' '), e.Took)
	}
	return f.body(append(b, ' '), m, e)
}

// daemons are the names of the daemons that were seen, by process.
type daemons map[int]string

// maxDaemons bounds how many are remembered.
const maxDaemons = 4096

// see learns a daemon's name: best from its main thread.
func (d daemons) see(e *event.Event) {
	if !e.Kind.Server() || d[e.PID] != "" && e.TID != e.PID {
		return
	}
	if len(d) >= maxDaemons {
		clear(d)
	}
	d[e.PID] = e.Process()
}

// daemon appends which daemon a line is about, once there are several.
func (f *Writer) daemon(b []byte, e *event.Event) []byte {
	ofMonitor := e.Kind >= event.MonitorNew && e.Kind <= event.MonitorSendFD
	if len(f.daemons) < 2 || !e.Server() && !ofMonitor {
		return b
	}
	b = Short(b, f.daemons[e.PID], 16)
	return append(strconv.AppendInt(append(b, '['), int64(e.PID), 10), "] "...)
}

// fit cuts the line that begins at start to the terminal's width. Colours have no
// width.
func (f *Writer) fit(start int) {
	if f.c.Width <= 0 {
		return
	}
	columns, escaped := f.c.Width, false
	for i := start; i < len(f.buf); i++ {
		switch c := f.buf[i]; {
		case c == '\x1b':
			escaped = true
		case escaped:
			escaped = c != 'm'
		case c&0xc0 == 0x80: // inside a character
		case columns == 1 && visible(f.buf[i:]) > 1:
			f.buf = f.paint(append(f.buf[:i], "…"...), 0)
			return
		default:
			columns--
		}
	}
}

// visible counts characters outside of colours, up to 2.
func visible(b []byte) int {
	n, escaped := 0, false
	for i := 0; i < len(b) && n < 2; i++ {
		switch c := b[i]; {
		case c == '\x1b':
			escaped = true
		case escaped:
			escaped = c != 'm'
		case c&0xc0 != 0x80:
			n++
		}
	}
	return n
}
