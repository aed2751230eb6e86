package libvirt

import "github.com/postern-project/postern/internal/trace/event"

// HeaderOf returns the header of an event's message.
func HeaderOf(e *event.Event) Header {
	return Header{
		Len: uint32(e.Len), Prog: e.Prog, Vers: e.Vers, Proc: e.Proc,
		Type: Type(e.Type), Serial: e.Serial, Status: Status(e.Status),
	}
}

// Event decodes an event's message, which stands until the next call.
func (d *Decoder) Event(e *event.Event) *Message {
	return d.Decode(HeaderOf(e), e.Payload, e.PayloadLen)
}

// Arguments decodes what a call was made with, which stands until the next call.
func (d *Decoder) Arguments(c *event.Call) *Message {
	h := Header{Prog: c.Prog, Vers: c.Vers, Proc: c.Proc, Type: Type(c.Type), Serial: c.Serial}
	return d.Decode(h, c.Args, c.ArgsLen)
}
