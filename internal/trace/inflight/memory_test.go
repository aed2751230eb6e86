package inflight

import (
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/postern-project/postern/internal/trace/libvirt"
)

// place lays words out in this process's memory: those below their length are addresses
// in them.
func place(words []uint64) (b []uint64, at uint64) {
	b = slices.Clone(words)
	at = uint64(uintptr(unsafe.Pointer(&b[0])))
	for i, w := range b {
		if w != 0 && w < uint64(8*len(b)) {
			b[i] = at + w
		}
	}
	return b, at
}

// queue is the memory of a daemon's pool with one queued call of a procedure, which a
// table may know or not.
func queue(proc uint32) []uint64 {
	const pool, job, data, msg, buffer, serial = 16, 48, 80, 112, 208, 900
	words := make([]uint64, 40)
	set := func(at int, w uint64) { words[at/8] = w }
	set(pool, job)
	set(job+24, data)
	set(data, 0x7f0012345678) // the client
	set(data+8, msg)
	set(msg, buffer)
	half := func(low, high uint32) uint64 { return uint64(low) | uint64(high)<<32 }
	set(msg+24, half(uint32(libvirt.SetIdentity.Prog), 1))
	set(msg+32, half(proc, uint32(libvirt.Call)))
	set(msg+40, half(serial, 0))
	var wire []byte
	for _, w := range []uint32{libvirt.HeaderLen + 4, libvirt.SetIdentity.Prog, 1, proc, 0, serial, 0, 42} {
		wire = binary.BigEndian.AppendUint32(wire, w)
	}
	for i := 0; i < len(wire); i += 8 {
		set(buffer+i, binary.LittleEndian.Uint64(wire[i:]))
	}
	return words
}

// TestQueuedCallsAreRead: also of procedures that no table knows.
func TestQueuedCallsAreRead(t *testing.T) {
	for _, proc := range []uint32{uint32(libvirt.SetIdentity.Proc), 4711} {
		b, at := place(queue(proc))
		jobs := memory(os.Getpid()).queued([]uint64{at + 16})
		if len(jobs) != 1 || jobs[0].client != 0x7f0012345678 || jobs[0].Proc != int32(proc) || jobs[0].size != 4 ||
			string(jobs[0].payload) != "\x00\x00\x00\x2a" {
			t.Errorf("procedure %d: %+v", proc, jobs)
		}
		runtime.KeepAlive(b)
	}
}

// FuzzMemory reads mutated memory of a daemon's.
func FuzzMemory(f *testing.F) {
	seed := func(words []uint64) {
		var b []byte
		for _, w := range words {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		f.Add(b)
	}
	seed(queue(4711))
	job := make([]uint64, 40)
	job[2], job[3], job[4], job[8] = uint64(os.Getpid()), 64, uint64(time.Now().UnixMilli()), 0x6d6574737973
	seed(job)
	seed([]uint64{8, 0x756365786522007b, 0x7b22657475636578})
	f.Fuzz(func(t *testing.T, b []byte) {
		words := make([]uint64, min(len(b)/8, 1<<12)+1)
		for i := range words[1:] {
			words[i] = binary.LittleEndian.Uint64(b[8*i:])
		}
		placed, at := place(words)
		m, threads, now := memory(os.Getpid()), map[int]string{os.Getpid(): "x"}, time.Now()
		size := 0
		for _, q := range m.queued(append([]uint64{at, at + 16}, placed...)) {
			size += len(q.payload)
			newCall(q.message)
		}
		if size > maxQueued*maxPayload {
			t.Errorf("%d bytes of calls", size)
		}
		m.mutexOwner(at, threads)
		if j, ok := m.jobOf(at, threads, now); ok && (threads[j.owner] == "" || j.started.After(now)) {
			t.Errorf("%+v", j)
		}
		if text := m.command(placed); len(text) > maxCommand {
			t.Errorf("a command of %d bytes", len(text))
		}
		since(placed, now)
		runtime.KeepAlive(placed)
	})
}
