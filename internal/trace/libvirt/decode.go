package libvirt

import (
	"encoding/binary"
	"math"
)

// DefaultLimit is how many values of one message are kept unless another limit is
// given.
const DefaultLimit = 4096

// Value is a node of a payload's tree. A message keeps its values in one slice,
// in order: the children of values[i] follow it up to values[i].next.
type Value struct {
	Name   string // the field's; "" for elements of an array
	Bytes  []byte // of strings and opaque data; part of the payload
	Num    uint64 // of numbers: the bits; of arrays: the count on the wire; of strings that are cut: their length
	next   int32
	typ    uint16
	Kind   Kind
	hint   hint
	table  uint16
	secret bool
	cut    bool // its end was not captured
}

// Part is what a message's payload holds.
type Part uint8

// The parts.
const (
	Nothing Part = iota
	Args         // a call's arguments
	Ret          // a reply's values
	Notice       // an event's values
	Error        // why the call failed
	Data         // a stream's bytes, not decoded
	Hole         // a hole in a stream
)

// Message is a decoded message. It and its values are the decoder's, and alias
// the payload: they hold until the next Decode.
type Message struct {
	Header
	Program   *Program   // nil when unknown
	Procedure *Procedure // nil when unknown
	Part      Part
	FDs       int // descriptors that came with it

	Values []Value
	Size   int // bytes of the payload on the wire

	Cut       bool // the payload's end was not captured
	Missing   int  // bytes of it that were not captured
	Trailing  int  // bytes that the tables know nothing of: a newer libvirt
	Malformed bool // the bytes are not what the tables say: another protocol
	Omitted   int  // elements of arrays that were decoded but not kept

	known          *tables
	object, domain int32 // indexes of the first object and the first domain; -1
}

// Decoder decodes messages one after the other. Its zero value works. It is not
// safe for concurrent use.
type Decoder struct {
	// Limit is the largest number of values kept of one message; elements of
	// arrays past it are checked and counted, not kept. 0 means DefaultLimit.
	Limit int

	m    Message
	rest []byte
	cut  bool // the payload ends before the message does
	fail bool // decoding cannot go on
}

// Decode decodes the payload of a message, which is what follows its 28 bytes
// of length and header, as far as it was captured; size is its whole length.
// It allocates nothing once warm. The message is valid until the next call.
func (d *Decoder) Decode(h Header, payload []byte, size int) *Message {
	m := &d.m
	*m = Message{Header: h, Values: m.Values[:0], Size: size, known: known(), object: -1, domain: -1}
	m.Program, m.Procedure = m.known.lookup(h.Prog, h.Proc)
	if size < len(payload) {
		size = len(payload)
	}
	d.rest, d.fail = payload, false
	d.cut = size > len(payload)
	m.Cut, m.Missing = d.cut, size-len(payload)
	d.payload()
	if !m.Cut && !d.fail && m.Part != Data {
		m.Trailing = len(d.rest)
	}
	d.rest = nil
	return m
}

func (d *Decoder) payload() {
	m := &d.m
	if m.Type == CallWithFDs || m.Type == ReplyWithFDs {
		n, ok := d.word()
		if !ok {
			return
		}
		m.FDs = int(n)
	}
	typ := uint16(0)
	m.Part, typ = m.part()
	if typ == 0 {
		return
	}
	t := &d.m.known.types[typ]
	for i := range int(t.count) {
		if !d.field(&d.m.known.fields[int(t.elem)+i]) {
			return
		}
	}
}

// part says what the payload holds, and of which struct; 0 for none.
func (m *Message) part() (Part, uint16) {
	p := m.Procedure
	switch {
	case m.Status == Failed:
		return Error, m.known.errorType
	case m.Type == StreamHole:
		return Hole, m.known.holeType
	case m.Type == Stream && m.Status == Continue:
		return Data, 0
	case p == nil || m.Type == Stream:
		return Nothing, 0
	case m.Type.IsCall() && p.args != 0:
		return Args, p.args
	case m.Type.IsReply() && p.ret != 0:
		return Ret, p.ret
	case m.Type == Event && p.args != 0:
		return Notice, p.args
	}
	return Nothing, 0
}

func (d *Decoder) field(f *fieldInfo) bool {
	return d.value(f.name, f.typ, f.hint, f.table)
}

func (d *Decoder) value(name string, typ uint16, h hint, table uint16) bool {
	t := &d.m.known.types[typ]
	switch t.kind {
	case kInt, kUint, kEnum:
		n, ok := d.word()
		if ok {
			v := d.add(name, typ, t.kind, h, table)
			v.Num = uint64(n)
			if t.kind != kUint {
				v.Num = uint64(int64(int32(n)))
			}
			if t.kind == kEnum {
				v.table, v.hint = t.elem, hintNames
			}
		}
		return ok
	case kHyper, kUhyper, kDouble:
		if !d.need(8) {
			return false
		}
		d.add(name, typ, t.kind, h, table).Num = binary.BigEndian.Uint64(d.rest)
		d.rest = d.rest[8:]
		return true
	case kString, kOpaque:
		n, ok := d.length(t.count)
		return ok && d.bytes(name, typ, t.kind, h, n, (n+3)&^3)
	case kUUID:
		return d.bytes(name, typ, t.kind, h, 16, 16)
	case kChars:
		n, ok := d.length(t.count)
		return ok && d.chars(name, typ, h, n)
	case kFixedChars:
		return d.chars(name, typ, h, int(t.count))
	case kOptional:
		return d.optional(name, t.elem, h, table)
	case kStruct, kParam:
		return d.composite(name, typ, h)
	case kArray:
		return d.array(name, typ, h)
	case kUnion:
		return d.union(t)
	}
	return d.malformed()
}

func (d *Decoder) optional(name string, elem uint16, h hint, table uint16) bool {
	n, ok := d.word()
	switch {
	case !ok:
		return false
	case n == 0:
		d.add(name, elem, kNull, h, table)
		return true
	}
	return d.value(name, elem, h, table) // any other number is true to XDR libraries
}

func (d *Decoder) composite(name string, typ uint16, h hint) bool {
	t := &d.m.known.types[typ]
	at := int32(len(d.m.Values))
	d.add(name, typ, t.kind, h, 0)
	if t.object != ObjectNone && d.m.object < 0 {
		d.m.object = at
	}
	if t.object == ObjectDomain && d.m.domain < 0 {
		d.m.domain = at
	}
	ok := true
	for i := 0; i < int(t.count) && ok; i++ {
		ok = d.field(&d.m.known.fields[int(t.elem)+i])
	}
	vs := d.m.Values
	vs[at].next = int32(len(vs))
	if t.kind == kParam && len(vs) == int(at)+3 && secretName(vs[at+1].Bytes) {
		vs[at+2].secret = true
	}
	return ok
}

func (d *Decoder) array(name string, typ uint16, h hint) bool {
	t := &d.m.known.types[typ]
	n, ok := d.length(t.count)
	if !ok {
		return false
	}
	at := len(d.m.Values)
	d.add(name, typ, kArray, h, 0).Num = uint64(n)
	limit := d.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	for i := 0; i < n && ok; i++ {
		mark := len(d.m.Values)
		ok = d.value("", t.elem, hintNone, 0)
		if mark >= limit {
			d.forget(mark)
		}
	}
	d.m.Values[at].next = int32(len(d.m.Values))
	return ok
}

// forget drops the element that was decoded last.
func (d *Decoder) forget(mark int) {
	m := &d.m
	m.Values = m.Values[:mark]
	m.Omitted++
	if int(m.object) >= mark {
		m.object = -1
	}
	if int(m.domain) >= mark {
		m.domain = -1
	}
}

func (d *Decoder) union(t *typeInfo) bool {
	n, ok := d.word()
	if !ok {
		return false
	}
	for i := range int(t.count) {
		if f := &d.m.known.fields[int(t.elem)+i]; f.arm == int32(n) {
			return d.field(f)
		}
	}
	return d.malformed()
}

// bytes adds a value of n bytes that takes padded on the wire. A string whose
// end was not captured is kept as far as it goes.
func (d *Decoder) bytes(name string, typ uint16, k Kind, h hint, n, padded int) bool {
	v := d.add(name, typ, k, h, 0)
	v.Num = uint64(n)
	if len(d.rest) < padded {
		v.Bytes, v.cut = d.rest[:min(n, len(d.rest))], true
		return d.need(padded)
	}
	v.Bytes, d.rest = d.rest[:n:n], d.rest[padded:]
	return true
}

// chars adds an array of n characters, each of which XDR widens to four bytes.
// Value.Bytes is the wide form.
func (d *Decoder) chars(name string, typ uint16, h hint, n int) bool {
	return d.bytes(name, typ, kChars, h, 4*n, 4*n)
}

// add appends a value without children.
func (d *Decoder) add(name string, typ uint16, k Kind, h hint, table uint16) *Value {
	d.m.Values = append(d.m.Values, Value{
		Name: name, Kind: k, typ: typ, hint: h, table: table, secret: h == hintSecret,
		next: int32(len(d.m.Values) + 1),
	})
	return &d.m.Values[len(d.m.Values)-1]
}

func (d *Decoder) word() (uint32, bool) {
	if !d.need(4) {
		return 0, false
	}
	n := binary.BigEndian.Uint32(d.rest)
	d.rest = d.rest[4:]
	return n, true
}

// length reads the length of a string or array and checks it against what the
// protocol allows.
func (d *Decoder) length(limit uint32) (int, bool) {
	n, ok := d.word()
	if ok && n > limit {
		return 0, d.malformed()
	}
	return int(n), ok
}

// need reports whether n more bytes were captured, and why not.
func (d *Decoder) need(n int) bool {
	if len(d.rest) >= n {
		return true
	}
	d.fail = true
	if !d.cut {
		d.m.Malformed = true
	}
	d.rest = nil
	return false
}

func (d *Decoder) malformed() bool {
	d.fail, d.m.Malformed, d.rest = true, true, nil
	return false
}

// Float returns a double's value.
func (v *Value) Float() float64 { return math.Float64frombits(v.Num) }
