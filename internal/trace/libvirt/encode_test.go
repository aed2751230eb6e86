package libvirt

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// encoder writes random values of the tables' types as XDR, and beside them
// what the decoder must say of each.
type encoder struct {
	r    *rand.Rand
	wire []byte
	want []string
}

func (e *encoder) word(n uint32) { e.wire = binary.BigEndian.AppendUint32(e.wire, n) }

func (e *encoder) pad(b []byte) {
	e.wire = append(e.wire, b...)
	for len(e.wire)%4 != 0 {
		e.wire = append(e.wire, 0)
	}
}

func (e *encoder) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + e.r.IntN(255))
	}
	return b
}

func (e *encoder) say(name string, format string, args ...any) {
	e.want = append(e.want, name+" "+fmt.Sprintf(format, args...))
}

func (e *encoder) value(name string, typ uint16) {
	t := known().types[typ]
	switch t.kind {
	case kInt, kEnum:
		n := e.r.Int32() - math.MaxInt32/2
		e.word(uint32(n))
		e.say(name, "int %d", n)
	case kUint:
		n := e.r.Uint32()
		e.word(n)
		e.say(name, "int %d", n)
	case kHyper, kUhyper, kDouble:
		n := e.r.Uint64()
		e.wire = binary.BigEndian.AppendUint64(e.wire, n)
		e.say(name, "bits %x", n)
	case kString, kOpaque:
		b := e.random(e.r.IntN(min(int(t.count), 40) + 1))
		e.word(uint32(len(b)))
		e.pad(b)
		e.say(name, "bytes %x", b)
	case kUUID:
		b := e.random(16)
		e.pad(b)
		e.say(name, "bytes %x", b)
	case kChars, kFixedChars:
		n := int(t.count)
		if t.kind == kChars {
			n = e.r.IntN(min(n, 20) + 1)
			e.word(uint32(n))
		}
		b := e.random(n)
		for _, c := range b {
			e.word(uint32(int32(int8(c))))
		}
		e.say(name, "bytes %x", b)
	case kOptional:
		if e.r.IntN(2) == 0 {
			e.word(0)
			e.say(name, "absent")
			return
		}
		e.word(1)
		e.value(name, t.elem)
	case kStruct, kParam:
		e.say(name, "struct")
		for _, f := range known().fields[t.elem : int(t.elem)+int(t.count)] {
			e.value(f.name, f.typ)
		}
	case kUnion:
		f := known().fields[int(t.elem)+e.r.IntN(int(t.count))]
		e.word(uint32(f.arm))
		e.value(f.name, f.typ)
	case kArray:
		n := e.r.IntN(min(int(t.count), 3) + 1)
		e.word(uint32(n))
		e.say(name, "array %d", n)
		for range n {
			e.value("", t.elem)
		}
	}
}

// payload writes a struct's fields.
func (e *encoder) payload(typ uint16) {
	t := known().types[typ]
	for _, f := range known().fields[t.elem : int(t.elem)+int(t.count)] {
		e.value(f.name, f.typ)
	}
}

// said returns what the decoder made of a payload, in the encoder's words.
func said(m *Message) []string {
	var out []string
	for i := range m.Values {
		v := &m.Values[i]
		s := ""
		switch v.Kind {
		case kInt, kEnum:
			s = fmt.Sprintf("int %d", int32(v.Num))
		case kUint:
			s = fmt.Sprintf("int %d", v.Num)
		case kHyper, kUhyper, kDouble:
			s = fmt.Sprintf("bits %x", v.Num)
		case kString, kOpaque, kUUID:
			s = fmt.Sprintf("bytes %x", v.Bytes)
		case kChars:
			s = fmt.Sprintf("bytes %x", narrow(v.Bytes))
		case kNull:
			s = "absent"
		case kStruct, kParam:
			s = "struct"
		case kArray:
			s = fmt.Sprintf("array %d", v.Num)
		}
		out = append(out, v.Name+" "+s)
	}
	return out
}

type shape struct {
	name string
	head Header
	typ  uint16
}

// shapes lists every payload that the tables know.
func shapes() []shape {
	var out []shape
	for _, p := range Programs() {
		for _, x := range p.Procedures {
			h := Header{Prog: p.Number, Vers: p.Version, Proc: x.Number}
			name := p.Name + "." + x.Name
			if x.Event() {
				h.Type = Event
				out = append(out, shape{name + " event", h, x.args})
				continue
			}
			out = append(out, shape{name + " call", h, x.args})
			h.Type = Reply
			out = append(out, shape{name + " reply", h, x.ret})
			h.Status = Failed
			out = append(out, shape{name + " error", h, known().errorType})
		}
	}
	return append(out, shape{"hole", Header{Prog: Programs()[0].Number, Proc: 1, Type: StreamHole}, known().holeType})
}

func TestEveryProcedureRoundTrips(t *testing.T) {
	e := &encoder{r: rand.New(rand.NewPCG(1, 2))}
	var d Decoder
	all := shapes()
	for _, s := range all {
		for range 8 {
			e.wire, e.want = e.wire[:0], e.want[:0]
			e.payload(s.typ)
			m := d.Decode(s.head, e.wire, len(e.wire))
			if m.Malformed || m.Cut || m.Trailing != 0 {
				t.Fatalf("%s: malformed %v, cut %v, %d bytes left of %d", s.name, m.Malformed, m.Cut, m.Trailing,
					len(e.wire))
			}
			got := said(m)
			if fmt.Sprint(got) != fmt.Sprint(e.want) {
				t.Fatalf("%s:\n got %v\nwant %v", s.name, got, e.want)
			}
		}
	}
	if len(all) < 1300 {
		t.Fatalf("only %d payloads in the tables", len(all))
	}
}

// TestCutAtEveryByte cuts payloads short everywhere: as captured in part, and
// as the whole of a message that some other protocol sent.
func TestCutAtEveryByte(t *testing.T) {
	e := &encoder{r: rand.New(rand.NewPCG(3, 4))}
	var d Decoder
	var buf []byte
	for _, s := range shapes() {
		e.wire, e.want = nil, e.want[:0]
		e.payload(s.typ)
		for n := range e.wire {
			m := d.Decode(s.head, e.wire[:n:n], len(e.wire))
			if !m.Cut || m.Malformed || m.Missing != len(e.wire)-n {
				t.Fatalf("%s cut at %d of %d: cut %v, malformed %v, missing %d", s.name, n, len(e.wire), m.Cut,
					m.Malformed, m.Missing)
			}
			buf = m.AppendText(buf[:0], Style{Full: n%2 == 0})
			buf = m.AppendJSON(buf[:0], Style{})
			mustBeJSON(t, buf)
			if m = d.Decode(s.head, e.wire[:n:n], n); !m.Malformed {
				t.Fatalf("%s: its first %d of %d bytes pass for the whole", s.name, n, len(e.wire))
			}
		}
		longer := append(e.wire[:len(e.wire):len(e.wire)], 0, 0, 0, 0)
		if m := d.Decode(s.head, longer, len(longer)); m.Trailing != 4 || m.Malformed {
			t.Fatalf("%s with 4 more bytes: %d left over, malformed %v", s.name, m.Trailing, m.Malformed)
		}
	}
}
