package format

import (
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Machines tells virtual machines apart: by their UUIDs where several have one name. The zero
// value works. It is not safe for concurrent use.
type Machines struct {
	names map[[16]byte]string
	first map[string][16]byte // of the machines that have a name, the one that was seen first
	twins map[string]bool     // names that several machines have
}

// maxMachine bounds the name of a machine, in bytes.
const maxMachine = 80

// Of returns the key of the machine that a call is about, by its arguments or by its answer
// e; "" for none.
func (m *Machines) Of(dec *libvirt.Decoder, e *event.Event) string {
	var o libvirt.Object
	if e.Call.Args != nil {
		o = dec.Arguments(e.Call).Domain()
	}
	if len(o.UUID) == 0 && !Unread(e) && !e.Kind.Notice() {
		if answer := dec.Event(e).Domain(); len(answer.UUID) > 0 || o.Kind == libvirt.ObjectNone {
			o = answer
		}
	}
	if key := m.Key(string(o.Name), o.UUID); key != "" {
		return key
	}
	return m.Key(e.Call.Domain, nil)
}

// Key returns by what a machine is known: its name, with the UUID where that is not the first
// machine of the name. The UUID may be nil; without a name the UUID finds the one that was
// seen with it, or "".
func (m *Machines) Key(name string, uuid []byte) string {
	name = string(Short(nil, name, maxMachine))
	if len(uuid) != 16 {
		if m.twins[name] {
			return name + " (one of several)"
		}
		return name
	}
	id := [16]byte(uuid)
	if name == "" {
		if name = m.names[id]; name == "" {
			return ""
		}
	}
	if m.names == nil || len(m.names) >= maxMachines || len(m.first) >= maxMachines {
		*m = Machines{names: map[[16]byte]string{}, first: map[string][16]byte{}, twins: map[string]bool{}}
	}
	m.names[id] = name
	switch first, known := m.first[name]; {
	case !known:
		m.first[name] = id
	case first != id:
		m.twins[name] = true
		return withUUID(name, id)
	}
	return name
}

// maxMachines bounds how many machines and names are remembered.
const maxMachines = 1 << 16

// Label returns a key as it is shown now: of a name that several have with the UUID.
func (m *Machines) Label(key string) string {
	if m.twins[key] {
		return withUUID(key, m.first[key])
	}
	return key
}

func withUUID(name string, id [16]byte) string {
	return string(append(libvirt.AppendUUID([]byte(name+" ("), id[:]), ')'))
}
