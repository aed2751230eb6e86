package format

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Clean appends foreign text so that it stays on its line and no terminal obeys
// it; what is printable stays as it is.
func Clean(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return libvirt.AppendPrintable(dst, s)
		}
	}
	return append(dst, s...)
}

// Short appends at most n bytes of s.
func Short(dst []byte, s string, n int) []byte {
	if len(s) <= n {
		return Clean(dst, s)
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return append(Clean(dst, s[:n]), "…"...)
}

// stackLines appends a line for each frame of the event's stack:
// 0xaddr : symbol+off/size [module], and with lines the source line behind it.
func (f *Writer) stackLines(e *event.Event, indent string, lines bool) {
	for i := range e.Frames {
		f.buf = append(f.buf, indent...)
		f.buf = appendFrame(f.buf, &e.Frames[i])
		if lines {
			f.buf = appendLine(f.buf, &e.Frames[i])
		}
		f.buf = append(f.buf, '\n')
	}
}

func appendFrame(dst []byte, fr *event.Frame) []byte {
	dst = Pointer(dst, fr.PC, 0)
	if fr.Size > 0 {
		dst = append(dst, " : "...)
		if fr.Symbol != "" {
			dst = Clean(dst, fr.Symbol)
		} else { // only its bounds are known
			dst = Pointer(dst, fr.Start, 0)
		}
		dst = strconv.AppendUint(append(dst, "+0x"...), fr.Offset, 16)
		dst = strconv.AppendUint(append(dst, "/0x"...), fr.Size, 16)
	}
	if fr.Module == "" {
		return dst
	}
	dst = Clean(append(dst, " ["...), fr.Module)
	if fr.Size == 0 {
		dst = strconv.AppendUint(append(dst, "+0x"...), fr.ModuleOffset, 16)
		dst = strconv.AppendUint(append(dst, "/0x"...), fr.ModuleSize, 16)
	}
	return append(dst, ']')
}

// appendLine appends the source line of a frame, after a space, if it is known.
func appendLine(dst []byte, fr *event.Frame) []byte {
	if fr.File == "" {
		return dst
	}
	return strconv.AppendInt(append(Clean(append(dst, ' '), fr.File), ':'), int64(fr.Line), 10)
}

// clock writes wall-clock times, formatting each second once.
type clock struct {
	second int64
	text   [8]byte
	utc    int64
	stamps [20]byte
}

// append appends 15:04:05.000000 in local time.
func (c *clock) append(dst []byte, t time.Time) []byte {
	if s := t.Unix(); s != c.second || c.text[0] == 0 {
		c.second = s
		t.Local().AppendFormat(c.text[:0], "15:04:05")
	}
	dst = append(dst, c.text[:]...)
	return padNumber(append(dst, '.'), uint64(t.Nanosecond()/1000), 6, '0')
}

// timestamp appends 2006-01-02T15:04:05.000000Z.
func (c *clock) timestamp(dst []byte, t time.Time) []byte {
	if s := t.Unix(); s != c.utc || c.stamps[0] == 0 {
		c.utc = s
		c.stamps = [20]byte{}
		t.UTC().AppendFormat(c.stamps[:0], "2006-01-02T15:04:05.")
	}
	dst = append(dst, c.stamps[:]...)
	return append(padNumber(dst, uint64(t.Nanosecond()/1000), 6, '0'), 'Z')
}

// Duration returns a duration with three significant digits: 41 ms, 1.25 s.
func Duration(d time.Duration) string { return string(took(nil, d)) }

// took appends a duration with three significant digits: 41 ms, 1.25 s.
func took(dst []byte, d time.Duration) []byte {
	switch {
	case d < time.Microsecond:
		return append(strconv.AppendInt(dst, d.Nanoseconds(), 10), " ns"...)
	case d < time.Millisecond:
		return append(digits(dst, d.Nanoseconds(), 1000), " µs"...)
	case d < time.Second:
		return append(digits(dst, d.Nanoseconds(), 1e6), " ms"...)
	}
	return append(digits(dst, d.Nanoseconds(), 1e9), " s"...)
}

// digits appends n in units with three significant digits.
func digits(dst []byte, n, unit int64) []byte {
	places, step := 2, unit/100
	switch {
	case n >= 100*unit:
		places, step = 0, unit
	case n >= 10*unit:
		places, step = 1, unit/10
	}
	n = (n + step/2) / step // rounded
	dst = strconv.AppendInt(dst, n*step/unit, 10)
	if places == 0 {
		return dst
	}
	rest := n % (unit / step)
	return padNumber(append(dst, '.'), uint64(rest), places, '0')
}

// Client appends who is at the other end of a connection: the strongest identity
// that is known, and the process or address.
func Client(dst []byte, p *event.Peer) []byte {
	dst = Identity(dst, p)
	switch {
	case p.PID != 0:
		dst = append(dst, ' ')
		dst = Short(dst, Program(p.Command), 24)
		dst = append(strconv.AppendInt(append(dst, '['), int64(p.PID), 10), ']')
	case p.Remote != "":
		if p.SASLName+p.TLSName != "" {
			dst = append(dst, ' ')
		}
		dst = Short(dst, p.Remote, 64)
	}
	return dst
}

// Identity appends the strongest identity that is known.
func Identity(dst []byte, p *event.Peer) []byte {
	switch {
	case p.SASLName != "":
		return Short(dst, p.SASLName, 64)
	case p.TLSName != "":
		return Short(dst, p.TLSName, 96)
	case p.User != "":
		return Short(dst, p.User, 32)
	case p.PID != 0 && p.UID >= 0:
		return strconv.AppendInt(append(dst, "uid "...), int64(p.UID), 10)
	}
	return dst
}

// Program returns the base name of a command line's program.
func Program(command string) string {
	end := len(command)
	start := 0
	for i := range len(command) {
		if command[i] == ' ' {
			end = i
			break
		}
		if command[i] == '/' {
			start = i + 1
		}
	}
	return command[start:end]
}
