package inflight

import (
	"bytes"
	"encoding/binary"

	"github.com/postern-project/postern/internal/trace/libvirt"
	"github.com/postern-project/postern/internal/trace/stack"
)

// memory is that of a process.
type memory int

func (m memory) read(addr uint64, b []byte) bool {
	return plausible(addr) && stack.ReadMemory(int(m), addr, b)
}

// plausible reports whether a word can be the address of one of the daemon's objects.
func plausible(addr uint64) bool { return addr > 1<<16 && addr < 1<<47 && addr%8 == 0 }

// text returns the text at an address: up to n printable bytes that end in NUL, or are n.
func (m memory) text(addr uint64, n int) string {
	if addr <= 1<<16 || addr >= 1<<47 {
		return ""
	}
	const chunk = 64
	var b []byte
	for len(b) < n {
		part := make([]byte, min(chunk-int(addr%chunk), n-len(b)))
		if !stack.ReadMemory(int(m), addr, part) {
			return ""
		}
		if i := bytes.IndexByte(part, 0); i >= 0 {
			return string(append(b, part[:i]...))
		}
		b = append(b, part...)
		addr += uint64(len(part))
	}
	return string(b)
}

// message is a call in a daemon's memory: a virNetMessage (src/rpc/virnetmessage.h).
type message struct {
	libvirt.Header
	payload []byte
	size    int // of the payload on the wire
}

const maxPayload = 64 << 10

// message returns the call at an address. A virNetMessage holds the decoded header, and
// the address of the bytes as they were received; where they stand differs from build to
// build, but both say the same.
func (m memory) message(addr uint64) (msg message, ok bool) {
	var b [96]byte
	if !m.read(addr, b[:]) {
		return msg, false
	}
	for at := 8; at+24 <= len(b); at += 4 {
		h, ok := headerAt(b[at:])
		if !ok {
			continue
		}
		for p := 0; p+8 <= at; p += 8 {
			if msg, ok := m.buffer(binary.LittleEndian.Uint64(b[p:]), h); ok {
				return msg, true
			}
		}
	}
	return msg, false
}

// headerAt reads a virNetMessageHeader of a call, of which the program is known.
func headerAt(b []byte) (libvirt.Header, bool) {
	u := binary.LittleEndian.Uint32
	h := libvirt.Header{
		Prog: u(b), Vers: u(b[4:]), Proc: int32(u(b[8:])), Type: libvirt.Type(u(b[12:])), Serial: u(b[16:]),
		Status: libvirt.Status(u(b[20:])),
	}
	if !h.Type.IsCall() || h.Status != libvirt.OK || h.Vers != 1 || h.Proc <= 0 {
		return h, false
	}
	p, _ := libvirt.Lookup(h.Prog, 0)
	return h, p != nil
}

// buffer reads the bytes of a message that has this header.
func (m memory) buffer(addr uint64, want libvirt.Header) (msg message, ok bool) {
	var head [libvirt.HeaderLen]byte
	if !m.read(addr, head[:]) {
		return msg, false
	}
	h, ok := libvirt.ParseHeader(head[:])
	want.Len = h.Len
	if !ok || h != want {
		return msg, false
	}
	msg = message{Header: h, size: int(h.Len) - libvirt.HeaderLen}
	payload := make([]byte, min(msg.size, maxPayload))
	if len(payload) == 0 || stack.ReadMemory(int(m), addr+libvirt.HeaderLen, payload) {
		msg.payload = payload
	}
	return msg, true
}
