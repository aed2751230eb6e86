// Package usdt finds static probes (SystemTap's USDT) in ELF files and in the
// processes that have mapped them: their places, their semaphores and where
// their arguments are.
package usdt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// Limits on what a foreign file may make us read.
const (
	maxNotes   = 4 << 20 // bytes of .note.stapsdt
	maxProbes  = 1 << 16
	maxSymbols = 64 << 20
)

// Probe is one place of one probe. A probe that the compiler put in several
// places is several of these.
type Probe struct {
	Provider  string
	Name      string
	Addr      uint64 // virtual address of the probe's instruction, as linked
	Offset    uint64 // the same in the file
	Semaphore uint64 // file offset of its reference counter, or 0 without one
	Spec      string // the arguments as the note writes them
	Args      []Arg
	Err       error // why Args could not be read from Spec; the probe can still be counted
}

// File is an ELF file's probes.
type File struct {
	Machine elf.Machine
	BuildID string // hexadecimal; "" without one
	Probes  []Probe
	elf     *elf.File
}

// ErrNoProbes is returned for a file without a .note.stapsdt section.
var ErrNoProbes = errors.New("the file has no static probes")

// Open reads the probes of an ELF file. The reader must stay open while
// [File.Symbol] and [File.Function] are used.
func Open(r io.ReaderAt) (*File, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%v %v files are not supported", f.Class, f.Data)
	}
	file := &File{Machine: f.Machine, BuildID: buildID(f), elf: f}
	sec := f.Section(".note.stapsdt")
	if sec == nil {
		return file, ErrNoProbes
	}
	if sec.Size > maxNotes {
		return nil, fmt.Errorf(".note.stapsdt has %d bytes", sec.Size)
	}
	data, err := sec.Data()
	if err != nil {
		return nil, err
	}
	notes, err := parseNotes(data, f.ByteOrder)
	if err != nil {
		return nil, err
	}
	var base uint64
	if b := f.Section(".stapsdt.base"); b != nil {
		base = b.Addr
	}
	for _, n := range notes {
		p, err := file.probe(n, base)
		if err != nil {
			return nil, fmt.Errorf("probe %s:%s: %w", n.provider, n.name, err)
		}
		file.Probes = append(file.Probes, p)
	}
	return file, nil
}

// probe places a note in the file. Prelink moves sections without correcting
// notes: the difference of the base section's address to what the note says is
// how far.
func (f *File) probe(n note, base uint64) (Probe, error) {
	p := Probe{Provider: n.provider, Name: n.name, Spec: n.args, Addr: n.location}
	sem := n.semaphore
	if base != 0 && n.base != 0 {
		p.Addr += base - n.base
		if sem != 0 {
			sem += base - n.base
		}
	}
	var ok bool
	if p.Offset, ok = f.offset(p.Addr, elf.PF_X); !ok {
		return p, fmt.Errorf("address 0x%x is in no executable segment", p.Addr)
	}
	if sem != 0 {
		if p.Semaphore, ok = f.offset(sem, elf.PF_W); !ok {
			return p, fmt.Errorf("semaphore 0x%x is in no writable segment", sem)
		}
	}
	p.Args, p.Err = ParseArgs(n.args, f.Machine)
	for i := range p.Args {
		f.resolve(&p.Args[i], p.Addr)
	}
	return p, nil
}

// resolve turns a PC-relative operand into a displacement from the program
// counter at the probe.
func (f *File) resolve(a *Arg, addr uint64) {
	if a.Symbol == "" {
		return
	}
	sym, ok := f.Symbol(a.Symbol)
	if !ok {
		a.Mode = None
		return
	}
	a.Disp += int64(sym.Value - addr)
}

// Symbol looks up a name in the file's symbol tables, any version.
func (f *File) Symbol(name string) (elf.Symbol, bool) {
	for _, table := range []struct {
		sec  elf.SectionType
		read func() ([]elf.Symbol, error)
	}{{elf.SHT_DYNSYM, f.elf.DynamicSymbols}, {elf.SHT_SYMTAB, f.elf.Symbols}} {
		if s := f.elf.SectionByType(table.sec); s == nil || s.Size > maxSymbols {
			continue
		}
		syms, err := table.read()
		if err != nil {
			continue
		}
		for _, s := range syms {
			if s.Name == name && s.Section != elf.SHN_UNDEF {
				return s, true
			}
		}
	}
	return elf.Symbol{}, false
}

// Offset returns where in the file the code at a virtual address is.
func (f *File) Offset(addr uint64) (uint64, bool) { return f.offset(addr, elf.PF_X) }

func (f *File) offset(addr uint64, flag elf.ProgFlag) (uint64, bool) {
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&flag != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return addr - p.Vaddr + p.Off, true
		}
	}
	// A semaphore may lie in .bss-like memory past the file: the kernel wants
	// its offset all the same.
	for _, p := range f.elf.Progs {
		if flag == elf.PF_W && p.Type == elf.PT_LOAD && p.Flags&flag != 0 && addr >= p.Vaddr &&
			addr-p.Vaddr < p.Memsz {
			return addr - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// buildID returns the file's NT_GNU_BUILD_ID in hexadecimal.
func buildID(f *elf.File) string {
	sec := f.Section(".note.gnu.build-id")
	if sec == nil || sec.Size > 4096 {
		return ""
	}
	data, err := sec.Data()
	if err != nil || len(data) < 16 {
		return ""
	}
	name, desc := uint64(f.ByteOrder.Uint32(data)), uint64(f.ByteOrder.Uint32(data[4:]))
	if name != 4 || desc > uint64(len(data)-16) || string(data[12:15]) != "GNU" {
		return ""
	}
	return hex.EncodeToString(data[16 : 16+desc])
}

// note is one entry of .note.stapsdt.
type note struct {
	location, base, semaphore uint64
	provider, name, args      string
}

const stapNote = 3 // NT_STAPSDT

// parseNotes reads a .note.stapsdt section of a 64-bit file
// (https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation). Notes
// of another owner or type are skipped.
func parseNotes(data []byte, order binary.ByteOrder) ([]note, error) {
	var notes []note
	for len(data) >= 12 {
		nameLen, descLen, typ := uint64(order.Uint32(data)), uint64(order.Uint32(data[4:])), order.Uint32(data[8:])
		data = data[12:]
		name, rest, ok := take(data, nameLen)
		if !ok {
			return nil, fmt.Errorf("a note's name of %d bytes passes the section's end", nameLen)
		}
		desc, rest, ok := take(rest, descLen)
		if !ok {
			return nil, fmt.Errorf("a note of %d bytes passes the section's end", descLen)
		}
		data = rest
		if typ != stapNote || string(name) != "stapsdt\x00" {
			continue
		}
		n, err := parseNote(desc, order)
		if err != nil {
			return nil, err
		}
		if len(notes) == maxProbes {
			return nil, fmt.Errorf("more than %d probes", maxProbes)
		}
		notes = append(notes, n)
	}
	return notes, nil
}

// take cuts n bytes off, and the padding to the next multiple of four as far as
// it is there.
func take(data []byte, n uint64) (head, rest []byte, ok bool) {
	if n > uint64(len(data)) {
		return nil, nil, false
	}
	padded := min((n+3)&^3, uint64(len(data)))
	return data[:n], data[padded:], true
}

func parseNote(desc []byte, order binary.ByteOrder) (note, error) {
	if len(desc) < 24 {
		return note{}, fmt.Errorf("a probe's note has only %d bytes", len(desc))
	}
	n := note{location: order.Uint64(desc), base: order.Uint64(desc[8:]), semaphore: order.Uint64(desc[16:])}
	rest := desc[24:]
	for _, s := range []*string{&n.provider, &n.name, &n.args} {
		text, after, ok := bytes.Cut(rest, []byte{0})
		if !ok {
			return note{}, errors.New("a probe's note has an unterminated string")
		}
		*s, rest = string(text), after
	}
	return n, nil
}
