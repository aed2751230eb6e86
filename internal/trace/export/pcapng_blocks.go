package export

import (
	"encoding/binary"
	"time"
)

// What a capture is written of: pcapng (draft-ietf-opsawg-pcapng), and in it IPv4
// (RFC 791) and TCP (RFC 9293) without options.
const (
	sectionBlock   = 0x0a0d0d0a
	interfaceBlock = 1
	enhancedBlock  = 6
	linkIPv4       = 228 // LINKTYPE_IPV4: packets begin with the IPv4 header
	headerLen      = 20  // of IPv4 and of TCP, each
	protocolTCP    = 6
	pushAck        = 0x18 // the flags PSH and ACK
)

// pcapngHeader returns what a capture of IPv4 packets begins with; its times are in
// nanoseconds.
func pcapngHeader() []byte {
	le := binary.LittleEndian
	section := le.AppendUint32(nil, 0x1a2b3c4d)             // the byte order
	section = append(section, 1, 0, 0, 0)                   // version 1.0
	section = le.AppendUint64(section, 1<<64-1)             // of a length that is not said
	device := append([]byte{linkIPv4, 0, 0, 0}, 0, 0, 0, 0) // without a limit of length
	device = append(device, 9, 0, 1, 0, 9, 0, 0, 0)         // if_tsresol: 10^-9 s
	device = append(device, 0, 0, 0, 0)                     // the end of the options
	return append(block(sectionBlock, section), block(interfaceBlock, device)...)
}

// packetBlock returns a packet as an Enhanced Packet Block.
func packetBlock(at time.Time, packet []byte) []byte {
	le, ns := binary.LittleEndian, uint64(at.UnixNano())
	body := make([]byte, 0, 20+len(packet)+3)
	for _, v := range []uint32{0, uint32(ns >> 32), uint32(ns), uint32(len(packet)), uint32(len(packet))} {
		body = le.AppendUint32(body, v)
	}
	body = append(body, packet...)
	return block(enhancedBlock, append(body, make([]byte, -len(packet)&3)...))
}

// block returns a block with a body whose length is a multiple of four.
func block(kind uint32, body []byte) []byte {
	le, n := binary.LittleEndian, uint32(len(body)+12)
	b := le.AppendUint32(make([]byte, 0, n), kind)
	b = append(le.AppendUint32(b, n), body...)
	return le.AppendUint32(b, n)
}

// segmentOf says what is in the headers of a TCP segment between 127.0.0.from and
// 127.0.0.to.
type segmentOf struct {
	from, to       byte
	source, target uint16 // ports
	seq, ack       uint32
}

// packet returns the IPv4 packet of the segment, with its checksums.
func (s segmentOf) packet(data []byte) []byte {
	be := binary.BigEndian
	addresses := []byte{127, 0, 0, s.from, 127, 0, 0, s.to}
	ip := append([]byte{0x45, 0}, be.AppendUint16(nil, uint16(2*headerLen+len(data)))...)
	ip = append(ip, 0, 0, 0, 0, 64, protocolTCP, 0, 0)
	ip = append(ip, addresses...)
	be.PutUint16(ip[10:], checksum(ip))

	tcp := make([]byte, headerLen, headerLen+len(data))
	be.PutUint16(tcp, s.source)
	be.PutUint16(tcp[2:], s.target)
	be.PutUint32(tcp[4:], s.seq)
	be.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = headerLen/4<<4, pushAck
	be.PutUint16(tcp[14:], 65535) // window
	tcp = append(tcp, data...)
	pseudo := append(addresses, 0, protocolTCP, byte(len(tcp)>>8), byte(len(tcp)))
	be.PutUint16(tcp[16:], checksum(pseudo, tcp))
	return append(ip, tcp...)
}

// checksum returns the Internet checksum (RFC 1071) of bytes, all but the last of which
// are even in number.
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, b := range parts {
		for i := range b {
			sum += uint32(b[i]) << (8 * (1 - i&1))
		}
		// What is carried is added at once, so that nothing overflows.
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
	}
	return ^uint16(sum)
}
