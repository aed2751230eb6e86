package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"

	"github.com/postern-project/postern/internal/trace/usdt"
)

// What a record is.
const (
	IsEvent  = iota // a probe was hit
	IsRegs          // registers and stack, before the event of the same thread
	IsReturn        // the function around a dispatch probe has returned
	IsThread        // names the thread whose events follow: see Thread
)

// Record is one record of the ring buffer. Data, and with it the strings, stand
// in the ring itself, where they are valid until the next Read.
type Record struct {
	Time     uint64 // CLOCK_MONOTONIC nanoseconds
	Since    uint64 // of ServerTx: when the thread began to serve the call that this answers; of SocketNew: see Peer
	PID, TID uint32
	Lost     uint32 // how many records were lost before this one
	Site     uint16
	What     uint16
	CPU      uint16
	Args     [usdt.MaxArgs]uint64
	Data     []byte
}

const recordSize = 40 + 8*usdt.MaxArgs

var errShort = errors.New("a record of the kernel is too short")

// parse reads a record as probe.c's struct record has it.
func (r *Record) parse(b []byte) error {
	if len(b) < recordSize {
		return errShort
	}
	le := binary.LittleEndian
	r.Time = le.Uint64(b)
	r.PID, r.TID = le.Uint32(b[8:]), le.Uint32(b[12:])
	size := le.Uint32(b[16:])
	r.Lost = le.Uint32(b[20:])
	r.Site, r.What, r.CPU = le.Uint16(b[24:]), le.Uint16(b[26:]), le.Uint16(b[28:])
	r.Since = le.Uint64(b[32:])
	for i := range r.Args {
		r.Args[i] = le.Uint64(b[40+8*i:])
	}
	b = b[recordSize:]
	if uint64(size) > uint64(len(b)) {
		return errShort
	}
	r.Data = b[:size]
	return nil
}

// Text returns the i-th string of a Strings record, and whether it was longer
// than what was copied.
func (r *Record) Text(i int) (s string, cut bool) {
	if i >= maxStrings || len(r.Data) < (i+1)*stringSlot {
		return "", false
	}
	b, _, _ := bytes.Cut(r.Data[i*stringSlot:(i+1)*stringSlot], []byte{0})
	return string(b), len(b) >= stringSlot-1
}

// Thread returns the contents of an IsThread record: the thread's name and its
// effective user.
func (r *Record) Thread() (comm string, uid int) {
	b, _, _ := bytes.Cut(r.Data, []byte{0})
	return string(b), int(uint32(r.Args[0]))
}

// Peer is the process at the other end of a Unix socket, as the kernel had it when
// the socket was accepted.
type Peer struct {
	PID, UID int    // the process, as the machine's first PID namespace numbers it
	Start    uint64 // its start time in clock ticks, as /proc/PID/stat has it; 0 unknown
	Session  uint32 // its audit session; 0 unknown, or AUDIT_SID_UNSET
}

// Where probe.c puts when the process was started and its audit session.
const (
	peerStart   = 8
	peerSession = 9
)

// nsPerTick are the nanoseconds of a clock tick: USER_HZ is 100 on amd64 and arm64.
const nsPerTick = 1e9 / 100

// Peer returns who is at the other end of the socket of a SocketNew record.
func (r *Record) Peer() (p Peer, ok bool) {
	return Peer{
		PID: int(uint32(r.Since)), UID: int(r.Since >> 32),
		Start: r.Args[peerStart] / nsPerTick, Session: uint32(r.Args[peerSession]),
	}, uint32(r.Since) != 0
}

// Return returns of an IsRegs record where a function that the thread was in, and
// whose return is watched, would return to, and the stack pointer then; zeros for
// none.
func (r *Record) Return() (pc, sp uint64) { return r.Args[0], r.Args[1] }

// RegsSize is how many bytes of registers begin the data of a IsRegs record.
func RegsSize() int {
	if runtime.GOARCH == "arm64" {
		return 34 * 8
	}
	return 21 * 8
}
