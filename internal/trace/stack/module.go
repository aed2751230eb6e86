package stack

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/postern-project/postern/internal/system"
)

// A module is an ELF file that is mapped: a program, a library or the vDSO. Its
// call frame information is read as it is needed, so the file stays open.
type module struct {
	name    string
	id      string // build-id in hexadecimal, or ""
	r       io.ReaderAt
	file    *os.File // nil for the vDSO
	elf     *elf.File
	machine elf.Machine
	index   []byte // the sorted table of .eh_frame_hdr: pairs of int32, relative to base
	base    uint64 // address of .eh_frame_hdr
	rows    map[uint64]*row
	names   *symbols // nil until first needed
	used    uint64   // when it was needed last, by the unwinder's count
}

// Bounds of what is read of a file.
const (
	maxIndex     = 32 << 20 // the index of call frame information: 4 million functions
	maxEntry     = 16 << 10 // one CIE or FDE; real ones have up to some 2 KiB
	maxRows      = 1 << 10  // rows kept of a module; libvirt's own takes some hundred
	maxRemembers = 512      // DW_CFA_remember_state in one entry
)

var errNoFrameInfo = errors.New("no call frame information")

// noPanic turns a panic in a library that reads foreign bytes into an error.
func noPanic(what string, err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: %v", what, p)
	}
}

func newModule(name string, r io.ReaderAt) (m *module, err error) {
	defer noPanic(name, &err)
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	m = &module{
		name: name, id: hex.EncodeToString(buildID(f)), r: r, elf: f, machine: f.Machine,
		rows: make(map[uint64]*row),
	}
	m.readIndex()
	return m, nil
}

// openModule opens the file behind a mapping of a process: the very file that is
// mapped, also when it was replaced or removed meanwhile; if the process is gone,
// the file of that name, if it is still the same one.
func openModule(pid int, mp *mapping) (*module, error) {
	if mp.path == vdsoName {
		return vdso()
	}
	places := []string{
		fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, mp.start, mp.end),
		fmt.Sprintf("/proc/%d/root%s", pid, mp.path),
		mp.path,
	}
	var errs error
	for i, path := range places {
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if i > 0 && !same(f, mp) {
			errs = errors.Join(errs, fmt.Errorf("%s is another file than the one that is mapped", path))
			f.Close()
			continue
		}
		m, err := newModule(mp.path, f)
		if err != nil {
			f.Close()
			return nil, err
		}
		m.file = f
		return m, nil
	}
	return nil, errs
}

// same reports whether f is the file of a mapping. The device is not compared:
// overlay and btrfs files have another one in /proc/PID/maps than stat tells.
func same(f *os.File, mp *mapping) bool {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return false
	}
	inode, ok := system.Inode(fi)
	return ok && inode == mp.inode
}

// size is how many bytes are kept of the file, roughly.
func (m *module) size() int {
	return len(m.index) + 1<<12 + m.names.size()
}

func (m *module) close() {
	if m.file != nil {
		m.file.Close()
	}
}

// vdso reads the vDSO of this process: the kernel maps the same one everywhere.
func vdso() (*module, error) {
	maps, err := readMaps(os.Getpid())
	if err != nil {
		return nil, err
	}
	for i := range maps {
		if maps[i].path == vdsoName {
			f, err := os.Open("/proc/self/mem")
			if err != nil {
				return nil, err
			}
			defer f.Close()
			b := make([]byte, min(maps[i].end-maps[i].start, 1<<20))
			if _, err := f.ReadAt(b, int64(maps[i].start)); err != nil {
				return nil, err
			}
			return newModule(vdsoName, bytes.NewReader(b))
		}
	}
	return nil, errors.New("no vDSO is mapped")
}

// address turns an offset of code in the file into an address of the file's own.
func (m *module) address(offset uint64) (uint64, bool) {
	for _, p := range m.elf.Progs {
		// The kernel maps whole pages: what is mapped can begin before the segment.
		if start := p.Off &^ 0xfff; p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && offset >= start &&
			offset-start < p.Filesz+(p.Off-start) {
			return offset - p.Off + p.Vaddr, true
		}
	}
	return 0, false
}

// read reads n bytes at an address of the file's own.
func (m *module) read(addr uint64, n int) ([]byte, error) {
	for _, p := range m.elf.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			b := make([]byte, min(uint64(n), p.Filesz-(addr-p.Vaddr)))
			_, err := m.r.ReadAt(b, int64(p.Off+addr-p.Vaddr))
			return b, err
		}
	}
	return nil, fmt.Errorf("no address %#x in %s", addr, m.name)
}

// readIndex reads the table of .eh_frame_hdr. A file without one has no call
// frame information for us.
func (m *module) readIndex() {
	for _, p := range m.elf.Progs {
		if p.Type != elf.PT_GNU_EH_FRAME {
			continue
		}
		head, err := m.read(p.Vaddr, 12)
		const udata4, sdata4, pcrel, datarel = 0x03, 0x0b, 0x10, 0x30 // how numbers are written
		if err != nil || len(head) < 12 ||
			string(head[:4]) != string([]byte{1, pcrel | sdata4, udata4, datarel | sdata4}) {
			return
		}
		n := uint64(m.elf.ByteOrder.Uint32(head[8:])) * 8
		if n > maxIndex || n > p.Filesz {
			return
		}
		if m.index, err = m.read(p.Vaddr+12, int(n)); err != nil {
			m.index = nil
			return
		}
		m.index = m.index[:len(m.index)&^7]
		m.base = p.Vaddr
	}
}

// entry returns the address of the FDE that may cover pc.
func (m *module) entry(pc uint64) (uint64, bool) {
	at := func(i, word int) uint64 {
		return m.base + uint64(int64(int32(m.elf.ByteOrder.Uint32(m.index[8*i+4*word:]))))
	}
	lo, hi := 0, len(m.index)/8
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if at(mid, 0) <= pc {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0, false
	}
	return at(lo-1, 1), true
}
