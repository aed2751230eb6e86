package libvirt

import (
	"encoding/binary"
	"fmt"
)

// WireFields lists the values in order, each as name=bytes on the wire, and
// lists as name<elements>.
func (m *Message) WireFields() []string {
	var out []string
	list := func(i int32) string { // elements are named after their list
		for j := i - 1; j >= 0; j-- {
			if v := &m.Values[j]; v.Kind == kArray && v.next > i {
				return v.Name
			}
		}
		return ""
	}
	for i := range m.Values {
		v := &m.Values[i]
		name := v.Name
		if name == "" {
			name = list(int32(i))
		}
		switch v.Kind {
		case kStruct, kParam:
		case kNull:
			out = append(out, name+" absent")
		case kArray:
			out = append(out, fmt.Sprintf("%s<%d>", name, v.Num))
		case kInt, kUint, kEnum:
			out = append(out, fmt.Sprintf("%s=%08x", name, uint32(v.Num)))
		case kHyper, kUhyper, kDouble:
			out = append(out, fmt.Sprintf("%s=%016x", name, v.Num))
		case kUUID:
			out = append(out, fmt.Sprintf("%s=%x", name, v.Bytes))
		case kString, kOpaque:
			b := binary.BigEndian.AppendUint32(nil, uint32(len(v.Bytes)))
			b = append(b, v.Bytes...)
			for len(b)%4 != 0 {
				b = append(b, 0)
			}
			out = append(out, fmt.Sprintf("%s=%x", name, b))
		case kChars:
			if m.known.types[v.typ].kind == kChars {
				out = append(out, fmt.Sprintf("%s<%d>", name, len(v.Bytes)/4))
			}
			for b := v.Bytes; len(b) >= 4; b = b[4:] {
				out = append(out, fmt.Sprintf("%s=%x", name, b[:4]))
			}
		}
	}
	return out
}
