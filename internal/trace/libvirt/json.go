package libvirt

import (
	"bytes"
	"math"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// AppendJSON appends the payload as a JSON object: a member for each field, in
// the protocol's order and with its names. Structures are objects, arrays are
// arrays, absent values null, UUIDs strings in their usual form, opaque data
// strings in hexadecimal, enumerations strings; a typed parameter is an object
// of field, type and value. Numbers are as wide as the protocol's, up to 64
// bits. What is shortened or cut ends in "…"; secrets are "***".
func (m *Message) AppendJSON(dst []byte, s Style) []byte {
	return m.appendObject(dst, 0, int32(len(m.Values)), s)
}

func (m *Message) appendObject(dst []byte, from, to int32, s Style) []byte {
	dst = append(dst, '{')
	for i := from; i < to; i = m.Values[i].next {
		if i > from {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, m.Values[i].Name...)
		dst = append(dst, `":`...)
		dst = m.appendJSON(dst, i, s)
	}
	return append(dst, '}')
}

func (m *Message) appendJSON(dst []byte, i int32, s Style) []byte {
	v := &m.Values[i]
	if v.secret && !s.Secrets {
		return append(dst, `"`+masked+`"`...)
	}
	switch v.Kind {
	case kInt, kHyper, kUint, kUhyper, kEnum:
		return m.jsonNumber(dst, v)
	case kDouble:
		return jsonFloat(dst, v.Float())
	case kString:
		return v.jsonString(dst, s)
	case kChars:
		return jsonText(dst, narrow(v.Bytes), shortText, v.cut, s)
	case kUUID:
		dst = append(dst, '"')
		return append(AppendUUID(dst, v.Bytes), '"')
	case kOpaque:
		return v.jsonOpaque(dst, s)
	case kStruct:
		return m.appendObject(dst, i+1, v.next, s)
	case kParam:
		return m.jsonParam(dst, i, s)
	case kArray:
		dst = append(dst, '[')
		for j := i + 1; j < v.next; j = m.Values[j].next {
			if j > i+1 {
				dst = append(dst, ',')
			}
			dst = m.appendJSON(dst, j, s)
		}
		return append(dst, ']')
	}
	return append(dst, "null"...)
}

func (m *Message) jsonNumber(dst []byte, v *Value) []byte {
	if v.hint == hintNames {
		if n := m.known.nameOf(v.table, int64(v.Num)); n != "" {
			dst = append(dst, '"')
			return append(append(dst, n...), '"')
		}
	}
	if v.Kind == kUint || v.Kind == kUhyper {
		return strconv.AppendUint(dst, v.Num, 10)
	}
	return strconv.AppendInt(dst, int64(v.Num), 10)
}

// jsonFloat writes what JSON has no number for as a string.
func jsonFloat(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		dst = append(dst, '"')
		return append(strconv.AppendFloat(dst, f, 'g', -1, 64), '"')
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

func (v *Value) jsonString(dst []byte, s Style) []byte {
	text, cut := v.shown(s)
	return jsonText(dst, text, shortText, cut, s)
}

func jsonText(dst, text []byte, limit int, cut bool, s Style) []byte {
	if s.Full {
		limit = len(text)
	}
	n := boundary(text, limit)
	dst = append(dst, '"')
	dst = AppendJSONText(dst, text[:n])
	if n < len(text) || cut {
		dst = append(dst, "…"...)
	}
	return append(dst, '"')
}

func (v *Value) jsonOpaque(dst []byte, s Style) []byte {
	b := v.Bytes
	if len(b) > 0 && b[0] == '<' {
		return v.jsonString(dst, s)
	}
	if !s.Full && len(b) > shortData {
		b = b[:shortData]
	}
	dst = append(dst, '"')
	dst = appendHex(dst, b)
	if uint64(len(b)) < v.Num {
		dst = append(dst, "…"...)
	}
	return append(dst, '"')
}

// paramTypes are virsh's names of the arms of a typed parameter's value.
var paramTypes = map[string]string{
	"i": "int", "ui": "uint", "l": "llong", "ul": "ullong", "d": "double", "b": "boolean", "s": "string",
}

func (m *Message) jsonParam(dst []byte, i int32, s Style) []byte {
	v := &m.Values[i]
	dst = append(dst, `{"field":`...)
	if v.next <= i+1 {
		return append(dst, "null}"...)
	}
	dst = m.appendJSON(dst, i+1, s)
	if v.next > i+2 {
		arm := &m.Values[i+2]
		dst = append(dst, `,"type":"`...)
		dst = append(dst, paramTypes[arm.Name]...)
		dst = append(dst, `","value":`...)
		if arm.Name == "b" {
			dst = strconv.AppendBool(dst, arm.Num != 0)
		} else {
			dst = m.appendJSON(dst, i+2, s)
		}
	}
	return append(dst, '}')
}

// AppendJSONText appends foreign text as the inside of a JSON string. What a
// terminal might obey, controls and characters that change the direction of
// writing, is escaped; what is not UTF-8 becomes U+FFFD.
func AppendJSONText[T string | []byte](dst []byte, text T) []byte {
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			if r, n = decodeRune(text[i:]); n > 1 && unicode.IsPrint(r) {
				i += n
				continue
			}
		}
		dst = append(dst, text[from:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case r == utf8.RuneError:
			dst = append(dst, "\ufffd"...)
		default:
			dst = appendJSONRune(dst, r)
		}
		i += n
		from = i
	}
	return append(dst, text[from:]...)
}

// appendJSONRune appends a character as JSON's escapes have it: \u and its UTF-16.
func appendJSONRune(dst []byte, r rune) []byte {
	for _, u := range utf16.AppendRune(nil, r) {
		dst = append(dst, '\\', 'u', hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
	}
	return dst
}

// Object is the thing that a message is about.
type Object struct {
	Kind ObjectKind
	Name []byte // part of the payload; nil when only the UUID or the number is known
	UUID []byte // 16 bytes, or nil
	ID   int32  // of a domain that runs; -1
}

// Object returns the first domain, network, volume or other object among the
// values, or what a lookup or definition is for. Kind is ObjectNone when there
// is none.
func (m *Message) Object() Object {
	if m.object >= 0 {
		return m.objectAt(m.object)
	}
	return m.sought()
}

// Domain returns the domain that the message is about, also that of a snapshot
// or an error. Kind is ObjectNone when there is none.
func (m *Message) Domain() Object {
	if m.domain >= 0 {
		return m.objectAt(m.domain)
	}
	if o := m.sought(); o.Kind == ObjectDomain {
		return o
	}
	return Object{ID: -1}
}

func (m *Message) objectAt(i int32) Object {
	v := &m.Values[i]
	o := Object{Kind: m.known.types[v.typ].object, ID: -1}
	for j := i + 1; j < v.next; j = m.Values[j].next {
		f := &m.Values[j]
		switch {
		case f.Kind == kUUID && o.UUID == nil:
			o.UUID = f.Bytes
		case f.Kind == kString && (f.Name == "name" || f.Name == "portdev" || f.Name == "usageID"):
			o.Name = f.Bytes
		case f.Kind == kInt && f.Name == "id":
			o.ID = int32(f.Num)
		}
	}
	if o.Name == nil && o.UUID == nil {
		o.Kind = ObjectNone // cut before it said which
	}
	return o
}

// sought is the object that a call names without having it: lookups and
// definitions.
func (m *Message) sought() Object {
	o := Object{ID: -1}
	if m.Part != Args || len(m.Values) == 0 {
		return o
	}
	p, v := m.Procedure, &m.Values[0]
	if len(p.Name) < 7 || p.Name[:7] != "domain_" || m.Program.Name != "remote" {
		return o
	}
	switch {
	case v.Name == "name" && p.Name == "domain_lookup_by_name":
		o.Name = v.Bytes
	case v.Kind == kUUID && p.Name == "domain_lookup_by_uuid":
		o.UUID = v.Bytes
	case v.Name == "id" && p.Name == "domain_lookup_by_id":
		o.ID = int32(v.Num)
	case v.Kind == kString && bytes.HasPrefix(bytes.TrimLeft(v.Bytes, " \r\n\t"), []byte("<domain")):
		o.Name = xmlName(v.Bytes)
	default:
		return o
	}
	o.Kind = ObjectDomain
	return o
}
