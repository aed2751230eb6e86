package libvirt

import (
	"bytes"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/postern-project/postern/internal/trace/qmp"
)

// Style says how much of a message is written out.
type Style struct {
	Full    bool // everything, where otherwise long strings, data and lists are shortened
	Secrets bool // secrets too
}

// How much of a value is shown unless everything is asked for.
const (
	shortText  = 160  // bytes of a string
	shortData  = 32   // bytes of opaque data
	shortArray = 8    // elements
	shortScan  = 1024 // bytes of a document that are searched for its name
)

// AppendText appends the payload on one line: arguments by name, an error in
// words, and what was cut or not understood. Foreign control characters are
// escaped.
func (m *Message) AppendText(dst []byte, s Style) []byte {
	start := len(dst)
	switch m.Part {
	case Error:
		dst = m.appendError(dst, s)
	case Data:
		dst = strconv.AppendInt(dst, int64(m.Size), 10)
		dst = append(dst, " bytes"...)
	default:
		dst = m.appendList(dst, 0, int32(len(m.Values)), s)
	}
	if m.FDs > 0 {
		dst = note(dst, start, "fds="+strconv.Itoa(m.FDs))
	}
	return m.appendDoubts(dst, start)
}

// appendDoubts says what is wrong with the payload, if anything is.
func (m *Message) appendDoubts(dst []byte, start int) []byte {
	switch {
	case m.Malformed:
		dst = note(dst, start, "["+strconv.Itoa(m.Size)+" bytes not understood]")
	case m.Part == Data:
	case m.Cut:
		dst = note(dst, start, "[cut: "+strconv.Itoa(m.Missing)+" of "+strconv.Itoa(m.Size)+" bytes missing]")
	case m.Trailing > 0:
		dst = note(dst, start, "["+strconv.Itoa(m.Trailing)+" bytes not known]")
	}
	return dst
}

func note(dst []byte, start int, s string) []byte {
	if len(dst) > start {
		dst = append(dst, ' ')
	}
	return append(dst, s...)
}

// appendError says why the call failed: the message, and libvirt's name of the
// code.
func (m *Message) appendError(dst []byte, s Style) []byte {
	e := m.Failure()
	if e == nil {
		return dst
	}
	dst = append(dst, ErrorName(e.Code)...)
	if len(e.Message) > 0 {
		dst = append(dst, ": "...)
		text := e.Message
		if !s.Secrets {
			text = appendClean(nil, text, m.Cut)
		}
		dst = appendEscaped(dst, text)
	}
	return dst
}

// ErrorInfo is what an error's payload says.
type ErrorInfo struct {
	Code, Domain int32
	Level        int32
	Message      []byte // in words; may be cut
}

// Failure returns the error that the message carries, or nil. Its text is part
// of the payload.
func (m *Message) Failure() *ErrorInfo {
	if m.Part != Error || len(m.Values) < 3 {
		return nil
	}
	e := &ErrorInfo{Code: int32(m.Values[0].Num), Domain: int32(m.Values[1].Num), Message: m.Values[2].Bytes}
	if len(m.Values) > 3 {
		e.Level = int32(m.Values[3].Num)
	}
	return e
}

// appendList appends the siblings from..to, separated by commas.
func (m *Message) appendList(dst []byte, from, to int32, s Style) []byte {
	first := true
	for i := from; i < to; i = m.Values[i].next {
		v := &m.Values[i]
		if v.Name == "flags" && v.Num == 0 && v.Kind < kString && !s.Full {
			continue
		}
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		if v.Name != "" {
			dst = append(dst, v.Name...)
			dst = append(dst, '=')
		}
		dst = m.appendValue(dst, i, s)
	}
	return dst
}

func (m *Message) appendValue(dst []byte, i int32, s Style) []byte {
	v := &m.Values[i]
	if v.secret && !s.Secrets {
		return append(dst, masked...)
	}
	switch v.Kind {
	case kInt, kHyper, kUint, kUhyper, kEnum:
		return m.appendNumber(dst, v)
	case kDouble:
		return strconv.AppendFloat(dst, v.Float(), 'g', -1, 64)
	case kString:
		return v.appendString(dst, s)
	case kChars:
		return v.appendChars(dst, s)
	case kUUID:
		return AppendUUID(dst, v.Bytes)
	case kOpaque:
		return v.appendOpaque(dst, s)
	case kStruct:
		dst = append(dst, '{')
		return append(m.appendList(dst, i+1, v.next, s), '}')
	case kParam:
		return m.appendParam(dst, i, s)
	case kArray:
		return m.appendArray(dst, i, s)
	}
	return append(dst, "none"...)
}

func (m *Message) appendNumber(dst []byte, v *Value) []byte {
	switch {
	case v.hint == hintNames:
		if n := m.known.nameOf(v.table, int64(v.Num)); n != "" {
			return append(dst, n...)
		}
	case v.hint == hintFlags:
		return appendFlags(dst, m.known.names[v.table], v.Num)
	case v.Name == "flags":
		return strconv.AppendUint(append(dst, "0x"...), v.Num&0xffffffff, 16)
	}
	if v.Kind == kUint || v.Kind == kUhyper {
		return strconv.AppendUint(dst, v.Num, 10)
	}
	return strconv.AppendInt(dst, int64(v.Num), 10)
}

// appendFlags appends the names of the bits that are set, joined by |, and the
// rest as a number.
func appendFlags(dst []byte, table []named, bits uint64) []byte {
	start := len(dst)
	for _, f := range table {
		if mask := uint64(f.value); mask != 0 && bits&mask == mask {
			if len(dst) > start {
				dst = append(dst, '|')
			}
			dst = append(dst, f.name...)
			bits &^= mask
		}
	}
	if bits == 0 && len(dst) > start {
		return dst
	}
	if len(dst) > start {
		dst = append(dst, '|')
	}
	return strconv.AppendUint(append(dst, "0x"...), bits, 16)
}

func (v *Value) appendString(dst []byte, s Style) []byte {
	if xml := bytes.TrimLeft(v.Bytes, " \r\n\t"); len(xml) > shortText && xml[0] == '<' && !s.Full {
		return v.appendXML(dst, xml, s)
	}
	text, cut := v.shown(s)
	if s.Full {
		return v.quoted(dst, text, len(text), cut)
	}
	return v.quoted(dst, text, shortText, cut)
}

// shown returns as much of the string as a style can show, without its
// secrets, and whether that is not all: a part of itself, where it has none.
func (v *Value) shown(s Style) (text []byte, cut bool) {
	text, cut = v.Bytes, v.cut
	if !s.Full && len(text) > shortText {
		text, cut = text[:shortText], true
	}
	switch {
	case s.Secrets:
	case v.hint == hintJSON:
		text = qmp.AppendMasked(nil, text)
	case leaky(text):
		text = appendClean(nil, text, cut)
	}
	return text, cut
}

// quoted appends text, or its first limit bytes and how long the whole is where
// more is cut.
func (v *Value) quoted(dst, text []byte, limit int, cut bool) []byte {
	if len(text) <= limit && !cut {
		dst = append(dst, '"')
		return append(appendEscaped(dst, text), '"')
	}
	dst = append(dst, '"')
	dst = appendEscaped(dst, text[:boundary(text, limit)])
	dst = append(dst, `…"(`...)
	dst = strconv.AppendUint(dst, v.Num, 10)
	return append(dst, " bytes)"...)
}

// boundary returns the largest length up to n that splits no character.
func boundary(text []byte, n int) int {
	if n >= len(text) {
		return len(text)
	}
	for i := n; i > 0 && i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	return n
}

// appendXML appends the first tag of a document, the name inside it and its
// length.
func (v *Value) appendXML(dst, xml []byte, s Style) []byte {
	tag := xml[:shortText]
	if i := bytes.IndexByte(tag, '>'); i >= 0 {
		tag = tag[:i+1]
	}
	if !s.Secrets && leaky(tag) {
		tag = appendClean(nil, tag, true)
	}
	dst = appendEscaped(dst, tag)
	if name := xmlName(xml); len(name) > 0 && len(name) <= shortText {
		dst = append(dst, "<name>"...)
		dst = appendEscaped(dst, name)
		dst = append(dst, "</name>"...)
	}
	dst = append(dst, "…("...)
	dst = strconv.AppendUint(dst, v.Num, 10)
	return append(dst, " bytes)"...)
}

// xmlName returns what the first <name> of a document holds.
func xmlName(xml []byte) []byte {
	_, rest, ok := bytes.Cut(xml[:min(len(xml), shortScan)], []byte("<name>"))
	if !ok {
		return nil
	}
	name, _, ok := bytes.Cut(rest, []byte("<"))
	if !ok {
		return nil
	}
	return name
}

func (v *Value) appendChars(dst []byte, s Style) []byte {
	text := narrow(v.Bytes)
	limit := shortText
	if s.Full {
		limit = len(text)
	}
	short := *v
	short.Num = uint64(len(text))
	return short.quoted(dst, text, limit, v.cut)
}

// narrow returns the characters of four bytes each, up to the first NUL.
func narrow(wide []byte) []byte {
	text := make([]byte, 0, min(len(wide)/4, 4096))
	for i := 3; i < len(wide) && wide[i] != 0; i += 4 {
		text = append(text, wide[i])
	}
	return text
}

const hexDigits = "0123456789abcdef"

// AppendUUID appends a UUID's 16 bytes in the usual form.
func AppendUUID(dst, b []byte) []byte {
	for i, c := range b {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

// appendOpaque appends data in hexadecimal, or as text where it is XML, as
// libvirt's migration cookies are.
func (v *Value) appendOpaque(dst []byte, s Style) []byte {
	if len(v.Bytes) > 0 && v.Bytes[0] == '<' {
		return v.appendString(dst, s)
	}
	b := v.Bytes
	if !s.Full && len(b) > shortData {
		b = b[:shortData]
	}
	dst = append(dst, "0x"...)
	dst = appendHex(dst, b)
	if uint64(len(b)) < v.Num {
		dst = append(dst, "…("...)
		dst = strconv.AppendUint(dst, v.Num, 10)
		dst = append(dst, " bytes)"...)
	}
	return dst
}

func appendHex(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst
}

func (m *Message) appendParam(dst []byte, i int32, s Style) []byte {
	v := &m.Values[i]
	if v.next > i+1 {
		dst = appendEscaped(dst, m.Values[i+1].Bytes)
	}
	dst = append(dst, '=')
	if v.next > i+2 {
		return m.appendValue(dst, i+2, s)
	}
	return append(dst, "…"...)
}

func (m *Message) appendArray(dst []byte, i int32, s Style) []byte {
	v := &m.Values[i]
	shown := uint64(0)
	dst = append(dst, '[')
	for j := i + 1; j < v.next && (s.Full || shown < shortArray); j = m.Values[j].next {
		if shown > 0 {
			dst = append(dst, ", "...)
		}
		dst = m.appendValue(dst, j, s)
		shown++
	}
	if shown < v.Num {
		if shown > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, "…+"...)
		dst = strconv.AppendUint(dst, v.Num-shown, 10)
	}
	return append(dst, ']')
}

// AppendPrintable appends foreign text with what a terminal might obey, or what
// would leave the line, escaped as in Go.
func AppendPrintable[T string | []byte](dst []byte, text T) []byte {
	return escape(dst, text, false)
}

// appendEscaped does the same for text that stands in quotes.
func appendEscaped(dst, text []byte) []byte { return escape(dst, text, true) }

func escape[T string | []byte](dst []byte, text T, quoted bool) []byte {
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < 0x7f && (!quoted || c != '"' && c != '\\') {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			r, n = decodeRune(text[i:])
		}
		if c >= utf8.RuneSelf && unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			i += n
			continue
		}
		dst = append(dst, text[from:i]...)
		dst = appendEscape(dst, text[i:i+n])
		i += n
		from = i
	}
	return append(dst, text[from:]...)
}

// decodeRune decodes a character without copying the rest.
func decodeRune[T string | []byte](text T) (rune, int) {
	var b [utf8.UTFMax]byte
	return utf8.DecodeRune(b[:copy(b[:], text)])
}

func appendEscape[T string | []byte](dst []byte, b T) []byte {
	switch b[0] {
	case '"', '\\':
		return append(dst, '\\', b[0])
	case '\n':
		return append(dst, '\\', 'n')
	case '\t':
		return append(dst, '\\', 't')
	case '\r':
		return append(dst, '\\', 'r')
	}
	for i := range len(b) {
		dst = append(dst, '\\', 'x', hexDigits[b[i]>>4], hexDigits[b[i]&15])
	}
	return dst
}
