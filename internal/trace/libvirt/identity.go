package libvirt

import (
	"iter"

	"github.com/postern-project/postern/internal/trace/event"
)

// Identity is what connect_set_identity says of the client that a proxy calls for.
// The names are VIR_CONNECT_IDENTITY_* of libvirt-host.h.
type Identity struct {
	PID      int    // 0 when not said
	Start    uint64 // of PID, in clock ticks since boot
	UID      int    // -1 when not said
	User     string
	SASLName string
	TLSName  string // distinguished name of the client's certificate
	SELinux  string // security context
}

// SetIdentity is REMOTE_PROC_CONNECT_SET_IDENTITY (src/remote/remote_protocol.x).
var SetIdentity = event.Procedure{Prog: 0x20008086, Proc: 419}

// Open is REMOTE_PROC_CONNECT_OPEN, which a proxy serves by opening a connection to another
// daemon and naming its client there.
var Open = event.Procedure{Prog: 0x20008086, Proc: 1}

// Identity returns what the arguments of connect_set_identity say, as far as they
// were captured whole; false for other messages.
func (m *Message) Identity() (Identity, bool) {
	id := Identity{UID: -1}
	if m.Part != Args || m.Malformed || m.Missing > 0 || m.Omitted > 0 ||
		(event.Procedure{Prog: m.Prog, Proc: m.Proc}) != SetIdentity {
		return id, false
	}
	for name, value := range m.Params() {
		id.set(name, value)
	}
	return id, true
}

// Params returns the typed parameters of a message, by name. A value stands as long as
// the message does.
func (m *Message) Params() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {
		for i := range m.Values {
			if m.Values[i].Kind == kParam && i+2 < len(m.Values) &&
				!yield(string(m.Values[i+1].Bytes), &m.Values[i+2]) {
				return
			}
		}
	}
}

func (id *Identity) set(name string, v *Value) {
	switch name {
	case "process-id":
		if v.Num < 1<<31 {
			id.PID = int(v.Num)
		}
	case "process-time":
		id.Start = v.Num
	case "unix-user-id":
		if v.Num < 1<<32 {
			id.UID = int(v.Num)
		}
	case "user-name":
		id.User = string(v.Bytes)
	case "sasl-user-name":
		id.SASLName = string(v.Bytes)
	case "x509-distinguished-name":
		id.TLSName = string(v.Bytes)
	case "selinux-context":
		id.SELinux = string(v.Bytes)
	}
}
