package export

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Pcapng writes the messages of daemons as a pcapng capture of TCP connections
// to libvirt's port, which Wireshark's libvirt dissector reads: also those that
// came over TLS or a Unix socket. Addresses and ports are made up. What was not
// captured of a message is zeros, up to 1 MiB; a longer message is left out.
type Pcapng struct {
	Messages int // written so far

	w      *bufio.Writer
	flows  map[event.Pointer]*flow
	opened int
}

// NewPcapng begins a capture in w.
func NewPcapng(w io.Writer) (*Pcapng, error) {
	x := &Pcapng{w: bufio.NewWriterSize(w, 64<<10), flows: map[event.Pointer]*flow{}}
	_, err := x.w.Write(pcapngHeader())
	return x, err
}

// Idle writes out what is buffered.
func (x *Pcapng) Idle() error { return x.w.Flush() }

// flow is one made-up TCP connection.
type flow struct {
	port     uint16
	seq, ack uint32 // next byte of the client, and of the daemon
}

const (
	libvirtPort   = 16509
	firstPort     = 20000
	segment       = 32 << 10 // bytes of one packet that is made up: IP allows 64 KiB
	maxExportSize = 1 << 20
)

// Event writes an event, if it is a message of a daemon.
func (x *Pcapng) Event(e *event.Event) error {
	at := e.Connection()
	if e.Kind == event.ServerFree {
		delete(x.flows, at)
	}
	if e.Kind != event.ServerRx && e.Kind != event.ServerTx || e.Len < libvirt.HeaderLen || e.Len > maxExportSize {
		return nil
	}
	f := x.flows[at]
	if f == nil {
		event.Bound(x.flows)
		f = &flow{port: uint16(firstPort + x.opened%40000), seq: 1, ack: 1}
		x.opened++
		x.flows[at] = f
	}
	x.Messages++
	b := wire(e)
	for len(b) > 0 {
		n := min(len(b), segment)
		if err := x.packet(e, f, b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// wire is the message as it was sent.
func wire(e *event.Event) []byte {
	b := make([]byte, 0, e.Len)
	for _, v := range []uint32{uint32(e.Len), e.Prog, e.Vers, uint32(e.Proc), e.Type, e.Serial, e.Status} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	n := copy(b[libvirt.HeaderLen:e.Len], e.Payload)
	clear(b[libvirt.HeaderLen+n : e.Len])
	return b[:e.Len]
}

func (x *Pcapng) packet(e *event.Event, f *flow, data []byte) error {
	p := segmentOf{from: 1, to: 2, source: f.port, target: libvirtPort, seq: f.seq, ack: f.ack}
	if e.Kind == event.ServerTx {
		p = segmentOf{from: 2, to: 1, source: libvirtPort, target: f.port, seq: f.ack, ack: f.seq}
		f.ack += uint32(len(data))
	} else {
		f.seq += uint32(len(data))
	}
	_, err := x.w.Write(packetBlock(e.Wall, p.packet(data)))
	return err
}
