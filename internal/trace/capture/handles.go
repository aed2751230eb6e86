//go:build linux

package capture

import (
	"github.com/postern-project/postern/internal/trace/bpf"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// Where struct virEventGLibHandle holds its callback: behind watch, fd, events and
// removed, each a word of 32 bits, and a pointer (src/util/vireventglib.c).
const callbackInHandle = 24

// withHandle has a dispatch's event carry, as one more argument, the handle's watch
// and descriptor: no other probe has the descriptor of a handle that is older than the
// tracer. The probe's callback and opaque are read from the handle, where the
// compiler left them there.
func withHandle(s *bpf.Site) {
	if s.Kind != event.HandleDispatch || len(s.Args) != 4 {
		return
	}
	cb, opaque := s.Args[2], s.Args[3]
	if cb.Mode != usdt.Mem || opaque.Mode != usdt.Mem || cb.Reg == usdt.NoReg || cb.Reg != opaque.Reg ||
		cb.Index != usdt.NoReg || opaque.Index != usdt.NoReg || opaque.Disp != cb.Disp+8 {
		return
	}
	handle := cb
	handle.Disp -= callbackInHandle
	s.Args = append(s.Args[:4:4], handle)
}

// takeHandle takes from a dispatch's event what withHandle added, and returns the
// descriptor.
func takeHandle(e *event.Event) (fd int, ok bool) {
	if e.Kind != event.HandleDispatch || len(e.Args) != 5 {
		return 0, false
	}
	handle := e.Args[4]
	e.Args = e.Args[:4]
	fd = int(int32(handle >> 32))
	return fd, uint32(handle) == uint32(e.Arg(0)) && fd >= 0
}

// handle sets what the descriptor of an event-loop handle is used for.
func (d *peers) handle(e *event.Event) {
	at := e.Pointer(0)
	fd, older := takeHandle(e)
	switch {
	case e.Kind == event.HandleAdd:
		d.watch(at, e.Int(1))
	case e.Kind == event.HandleIdle:
		defer delete(d.watches, at)
	case older:
		if _, known := d.watches[at]; !known {
			d.watch(at, fd)
		}
	}
	e.FD = d.watches[at]
}

func (d *peers) watch(at event.Pointer, fd int) {
	event.Bound(d.watches)
	d.watches[at] = describeFD(at.PID, fd)
}
