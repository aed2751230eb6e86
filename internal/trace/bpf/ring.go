package bpf

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ring reads a kernel ring buffer (BPF_MAP_TYPE_RINGBUF) where it lies. Its wait
// goes through Go's own poller: a thread that waited in epoll_wait would keep
// the scheduler's monitor awake, which wakes every 20 microseconds and takes
// more CPU than all records.
type ring struct {
	file     *os.File
	conn     syscall.RawConn
	control  []byte // the page with the reader's position, which the kernel reads
	shared   []byte // the page with the kernel's position, and the data, twice in a row
	consumer *uint64
	producer *uint64
	data     []byte
	mask     uint64
	at       uint64 // position of the next record
	freed    uint64 // the consumer position that was written for the kernel
	end      uint64 // the kernel's position when last looked at
}

// A record's header, from include/uapi/linux/bpf.h.
const (
	ringHeader  = 8
	ringBusy    = 1 << 31
	ringDiscard = 1 << 30
)

func newRing(m *ebpf.Map) (*ring, error) {
	size, page := int(m.MaxEntries()), os.Getpagesize()
	fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copy the ring buffer's descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else Go would not poll it
		unix.Close(fd)
		return nil, err
	}
	r := &ring{file: os.NewFile(uintptr(fd), "ring buffer"), mask: uint64(size - 1)}
	if r.conn, err = r.file.SyscallConn(); err == nil {
		r.control, err = unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err == nil {
		r.shared, err = unix.Mmap(fd, int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		_ = r.close()
		return nil, fmt.Errorf("map the ring buffer: %w", err)
	}
	r.consumer = (*uint64)(unsafe.Pointer(&r.control[0]))
	r.producer = (*uint64)(unsafe.Pointer(&r.shared[0]))
	r.data = r.shared[page:]
	r.at = atomic.LoadUint64(r.consumer)
	r.freed, r.end = r.at, r.at
	return r, nil
}

// next returns the next record in place, or nil when there is none. It stands
// until next is called again.
func (r *ring) next() []byte {
	for {
		if r.at == r.end {
			r.end = atomic.LoadUint64(r.producer)
		}
		if r.at == r.end {
			r.free()
			return nil
		}
		// Writing the position costs both sides: once for many records.
		if r.at-r.freed > r.mask/16 {
			r.free()
		}
		start := r.at & r.mask
		n := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[start])))
		if n&ringBusy != 0 { // still being written
			r.free()
			return nil
		}
		size := uint64(n &^ ringDiscard)
		r.at += (ringHeader + size + 7) &^ 7
		if n&ringDiscard == 0 {
			return r.data[start+ringHeader:][:size:size]
		}
	}
}

// free writes the consumer position, up to which the kernel may overwrite.
func (r *ring) free() {
	if r.freed != r.at {
		r.freed = r.at
		atomic.StoreUint64(r.consumer, r.at)
	}
}

// filling reports whether more than an eighth of the ring is taken.
func (r *ring) filling() bool { return atomic.LoadUint64(r.producer)-r.freed > r.mask/8 }

// wait returns when the kernel wakes the reader, or at the deadline with
// os.ErrDeadlineExceeded. Records that come without a wake-up do not end it. A
// wake-up from before the wait is forgotten by the poller: woken reports whether
// there was one.
func (r *ring) wait(deadline time.Time, woken func() bool) error {
	if err := r.file.SetReadDeadline(deadline); err != nil {
		return err
	}
	waited := false
	return r.conn.Read(func(uintptr) bool {
		done := waited || woken()
		waited = true
		return done
	})
}

// close ends a wait, too. Nothing may be read after it.
func (r *ring) close() error {
	err := r.file.Close()
	for _, m := range [][]byte{r.control, r.shared} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	return err
}
