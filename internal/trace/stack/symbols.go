package stack

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/ulikunitz/xz/lzma"
)

// A symbol is a function of a module.
type symbol struct {
	addr uint64
	size uint32
	name uint32 // offset in the names
	rank uint8  // the better of several at one address has the higher
}

// symbols are a module's functions by address.
type symbols struct {
	list  []symbol
	names []byte // each ends in NUL
}

// Bounds of what is read for names.
const (
	maxSymbols   = 1 << 20
	maxNames     = 64 << 20
	maxMiniDebug = 64 << 20 // .gnu_debugdata, unpacked
)

// size is how many bytes are kept, roughly.
func (s *symbols) size() int {
	if s == nil {
		return 0
	}
	return len(s.names) + 24*len(s.list)
}

// find returns the function at addr, or nil: the last that begins at or before it
// and whose size, if it has one, reaches it.
func (s *symbols) find(addr uint64) *symbol {
	i, _ := slices.BinarySearchFunc(s.list, addr, func(s symbol, addr uint64) int {
		if s.addr <= addr {
			return -1
		}
		return 1
	})
	for n := 0; i > 0 && n < 16; n++ { // a small function may lie inside another's range
		i--
		if f := &s.list[i]; f.size == 0 || addr-f.addr < uint64(f.size) {
			return f
		}
	}
	return nil
}

func (s *symbols) name(f *symbol) string {
	name, _, _ := bytes.Cut(s.names[f.name:], []byte{0})
	return string(name)
}

// readSymbols gathers the names of a module's functions: from its debug file, if
// one is installed, from itself, and from the small table that some
// distributions pack into .gnu_debugdata. It never fails: without names there
// are the functions' bounds.
func readSymbols(pid int, m *module, debug []string) *symbols {
	s := new(symbols)
	if m.file != nil {
		s.debugFile(pid, m, debug)
	}
	s.add(m.elf)
	s.miniDebug(m.elf)
	s.sort()
	return s
}

// sort puts the functions in order of their addresses, one for each.
func (s *symbols) sort() {
	slices.SortFunc(s.list, func(a, b symbol) int {
		switch {
		case a.addr != b.addr:
			return compare(a.addr, b.addr)
		case a.rank != b.rank:
			return int(b.rank) - int(a.rank)
		}
		return bytes.Compare(s.names[a.name:], s.names[b.name:])
	})
	s.list = slices.CompactFunc(s.list, func(a, b symbol) bool { return a.addr == b.addr })
}

func compare(a, b uint64) int {
	if a < b {
		return -1
	}
	return 1
}

// add takes a file's functions, of .symtab and of .dynsym.
func (s *symbols) add(f *elf.File) {
	for _, sec := range f.Sections {
		if sec.Type == elf.SHT_SYMTAB || sec.Type == elf.SHT_DYNSYM || sec.Type == elf.SHT_STRTAB {
			if sec.Size > maxNames || sec.Flags&elf.SHF_COMPRESSED != 0 {
				return
			}
		}
	}
	for _, read := range []func() ([]elf.Symbol, error){f.Symbols, f.DynamicSymbols} {
		list, err := guarded(read)
		if err != nil {
			continue
		}
		for i := range list {
			s.take(f, &list[i])
		}
	}
}

func guarded(read func() ([]elf.Symbol, error)) (list []elf.Symbol, err error) {
	defer noPanic("symbols", &err)
	return read()
}

func (s *symbols) take(f *elf.File, y *elf.Symbol) {
	typ := elf.ST_TYPE(y.Info)
	const ifunc = elf.STT_LOOS // STT_GNU_IFUNC: its resolver
	if typ != elf.STT_FUNC && typ != ifunc || y.Section == elf.SHN_UNDEF || y.Value == 0 || y.Name == "" {
		return
	}
	if len(s.list) >= maxSymbols || len(s.names)+len(y.Name) >= maxNames {
		return
	}
	bind := elf.ST_BIND(y.Info)
	rank := uint8(0)
	switch bind {
	case elf.STB_GLOBAL:
		rank = 2
	case elf.STB_WEAK:
		rank = 1
	}
	if y.Name[0] != '_' {
		rank += 2 // the name that a programmer knows it by
	}
	s.list = append(s.list, symbol{
		addr: y.Value, size: uint32(min(y.Size, 1<<32-1)), name: uint32(len(s.names)),
		rank: rank,
	})
	s.names = append(append(s.names, y.Name...), 0)
}

// debugFile takes the functions of the file that holds what was stripped, in the
// process's own file system or in the host's.
func (s *symbols) debugFile(pid int, m *module, dirs []string) {
	id := buildID(m.elf)
	if len(id) < 3 || len(id) > 64 {
		return
	}
	x := hex.EncodeToString(id)
	for _, dir := range dirs {
		path := filepath.Join(dir, ".build-id", x[:2], x[2:]+".debug")
		for _, root := range []string{fmt.Sprintf("/proc/%d/root", pid), ""} {
			f, err := os.Open(root + path)
			if err != nil {
				continue
			}
			e, err := elfFile(f)
			if err == nil && bytes.Equal(buildID(e), id) {
				s.add(e)
			}
			f.Close()
			if err == nil {
				return
			}
		}
	}
}

func elfFile(r io.ReaderAt) (f *elf.File, err error) {
	defer noPanic("ELF file", &err)
	return elf.NewFile(r)
}

// buildID returns the identity that the linker gave a file, or nil.
func buildID(f *elf.File) []byte {
	s := f.Section(".note.gnu.build-id")
	if s == nil || s.Size > 256 {
		return nil
	}
	b, err := data(s)
	if err != nil || len(b) < 16 || string(b[12:16]) != "GNU\x00" {
		return nil
	}
	n := f.ByteOrder.Uint32(b[4:])
	if uint64(n) > uint64(len(b)-16) {
		return nil
	}
	return b[16 : 16+n]
}

func data(s *elf.Section) (b []byte, err error) {
	defer noPanic("section", &err)
	return s.Data()
}

// miniDebug takes the functions of the ELF file that is packed into
// .gnu_debugdata.
func (s *symbols) miniDebug(f *elf.File) {
	sec := f.Section(".gnu_debugdata")
	if sec == nil || sec.Size > maxMiniDebug {
		return
	}
	packed, err := data(sec)
	if err != nil {
		return
	}
	b, err := unpack(packed)
	if err != nil {
		return
	}
	if e, err := elfFile(bytes.NewReader(b)); err == nil {
		s.add(e)
	}
}

// unpack unpacks the first block of an xz file, which is all that is made of such
// tables. The block's head is read here, for the size of the dictionary that it
// asks for: https://tukaani.org/xz/xz-file-format.txt, 3.1 and 5.3.1.
func unpack(packed []byte) (b []byte, err error) {
	defer noPanic(".gnu_debugdata", &err)
	const streamHead, lzma2, maxDict = 12, 0x21, 28 // 28 says 64 MiB
	if len(packed) < streamHead+4 || string(packed[:6]) != "\xfd7zXZ\x00" {
		return nil, errors.New("no xz file")
	}
	head := packed[streamHead:]
	size := (int(head[0]) + 1) * 4
	if size > len(head) {
		return nil, io.ErrUnexpectedEOF
	}
	flags, at := head[1], 2
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // the block's sizes
		for present && at < size {
			at++
			present = head[at-1]&0x80 != 0
		}
	}
	if flags&3 != 0 || at+3 > size || head[at] != lzma2 || head[at+1] != 1 || head[at+2] > maxDict {
		return nil, errors.New("packed in another way than LZMA2 with 64 MiB")
	}
	bits := head[at+2]
	r, err := lzma.Reader2Config{DictCap: (2 | int(bits&1)) << (bits/2 + 11)}.NewReader2(bytes.NewReader(head[size:]))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxMiniDebug))
}
