package posterntest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// RPC is a bare client of libvirt's RPC protocol: it sends bytes and reads
// bytes, as fast as the daemon answers. Not safe for concurrent use.
type RPC struct {
	conn   net.Conn
	serial uint32
	buf    []byte
}

// Numbers of libvirt's main RPC program and of QEMU's.
const (
	RemoteProgram = 0x20008086
	QEMUProgram   = 0x20008087
)

// Some of its procedures.
const (
	ProcOpen         = 1
	ProcClose        = 2
	ProcDomainInfo   = 16
	ProcLookupByName = 23
	ProcAuthList     = 66
	ProcLibVersion   = 157
	ProcDomainState  = 212

	ProcQEMUMonitorCommand = 1 // of QEMUProgram
)

// DialRPC connects to a daemon's socket and opens qemu:///system.
func DialRPC(network, address string) (*RPC, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	r := &RPC{conn: conn}
	if _, err := r.Call(ProcAuthList, nil); err != nil {
		return nil, err
	}
	open := append(binary.BigEndian.AppendUint32(nil, 1), String("qemu:///system")...)
	if _, err := r.Call(ProcOpen, binary.BigEndian.AppendUint32(open, 0)); err != nil {
		return nil, err
	}
	return r, nil
}

// String encodes a string as XDR does.
func String(s string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(s)))
	b = append(b, s...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Call sends a call and returns the reply's payload, which stands until the next
// call. A reply with the status error is an error.
func (r *RPC) Call(proc int32, payload []byte) ([]byte, error) {
	return r.CallProgram(RemoteProgram, proc, payload)
}

// CallProgram is Call of another program.
func (r *RPC) CallProgram(prog uint32, proc int32, payload []byte) ([]byte, error) {
	if err := r.Send(prog, proc, payload); err != nil {
		return nil, err
	}
	return r.Receive()
}

// Send sends a call without waiting for its reply.
func (r *RPC) Send(prog uint32, proc int32, payload []byte) error {
	b := r.buf[:0]
	for _, v := range []uint32{uint32(28 + len(payload)), prog, 1, uint32(proc), 0, r.serial, 0} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	r.buf = append(b, payload...)
	r.serial++
	_, err := r.conn.Write(r.buf)
	return err
}

// Receive reads one reply.
func (r *RPC) Receive() ([]byte, error) {
	for {
		var header [28]byte
		if _, err := io.ReadFull(r.conn, header[:]); err != nil {
			return nil, err
		}
		n := binary.BigEndian.Uint32(header[:])
		if n < 28 || n > 64<<20 {
			return nil, fmt.Errorf("a message of %d bytes", n)
		}
		if cap(r.buf) < int(n) {
			r.buf = make([]byte, n)
		}
		r.buf = r.buf[:n-28]
		if _, err := io.ReadFull(r.conn, r.buf); err != nil {
			return nil, err
		}
		if typ := binary.BigEndian.Uint32(header[16:]); typ != 1 {
			continue
		}
		if status := binary.BigEndian.Uint32(header[24:]); status != 0 {
			return nil, fmt.Errorf("procedure %d failed", binary.BigEndian.Uint32(header[12:]))
		}
		return r.buf, nil
	}
}

// Close hangs up.
func (r *RPC) Close() error { return r.conn.Close() }
