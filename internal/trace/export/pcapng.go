package export

import (
	"encoding/binary"
	"io"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/postern-project/postern/internal/trace/event"
	"github.com/postern-project/postern/internal/trace/libvirt"
)

// Pcapng writes the messages of daemons as a pcapng capture of TCP connections
// to libvirt's port, which Wireshark's libvirt dissector reads: also those that
// came over TLS or a Unix socket. Addresses and ports are made up. What was not
// captured of a message is zeros, up to 1 MiB; a longer message is left out.
type Pcapng struct {
	Messages int // written so far

	w      *pcapgo.NgWriter
	flows  map[event.Pointer]*flow
	opened int
}

// NewPcapng begins a capture in w.
func NewPcapng(w io.Writer) (*Pcapng, error) {
	ng, err := pcapgo.NewNgWriter(w, layers.LinkTypeEthernet)
	return &Pcapng{w: ng, flows: map[event.Pointer]*flow{}}, err
}

// Idle writes out what is buffered.
func (x *Pcapng) Idle() error { return x.w.Flush() }

// flow is one made-up TCP connection.
type flow struct {
	port     layers.TCPPort
	seq, ack uint32 // next byte of the client, and of the daemon
}

const (
	libvirtPort   = 16509
	firstPort     = 20000
	segment       = 32 << 10 // bytes of one synthetic packet: IP allows 64 KiB
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
		f = &flow{port: layers.TCPPort(firstPort + x.opened%40000), seq: 1, ack: 1}
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
	client, daemon := net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: client, DstIP: daemon}
	tcp := &layers.TCP{
		SrcPort: f.port, DstPort: libvirtPort, Seq: f.seq, Ack: f.ack, ACK: true, PSH: true,
		Window: 65535,
	}
	if e.Kind == event.ServerTx {
		ip.SrcIP, ip.DstIP = daemon, client
		tcp.SrcPort, tcp.DstPort, tcp.Seq, tcp.Ack = libvirtPort, f.port, f.ack, f.seq
		f.ack += uint32(len(data))
	} else {
		f.seq += uint32(len(data))
	}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		return err
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: mac, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}, ip, tcp,
		gopacket.Payload(data))
	if err != nil {
		return err
	}
	p := buf.Bytes()
	return x.w.WritePacket(gopacket.CaptureInfo{Timestamp: e.Wall, CaptureLength: len(p), Length: len(p)}, p)
}
