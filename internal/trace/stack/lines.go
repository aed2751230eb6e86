package stack

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"slices"
)

// lines are the source lines of a file's code. Of the debug information only the line number
// programs are kept: which of them describes an address is known at once, and that one runs
// when it is asked.
type lines struct {
	programs  []byte // .debug_line
	names     []byte // .debug_line_str
	order     binary.ByteOrder
	sequences []sequence // by address
}

// sequence is code without gaps, and where in programs the program is that describes it.
type sequence struct {
	low, high uint64
	program   uint32
}

// Bounds of what is read for lines: of libvirt's library the programs have some 3 MB.
const (
	maxPrograms  = 64 << 20
	maxSequences = 1 << 20
)

// readLines returns the source lines of a file's code, or nil when it tells none.
func readLines(f *elf.File) *lines {
	l := &lines{
		programs: debugSection(f, ".debug_line"), names: debugSection(f, ".debug_line_str"),
		order: f.ByteOrder,
	}
	l.index()
	if len(l.sequences) == 0 {
		return nil
	}
	return l
}

// debugSection returns a section, unpacked; nil when there is none, or too much of it.
func debugSection(f *elf.File, name string) []byte {
	s := f.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS || s.Size > maxPrograms {
		return nil
	}
	b, err := data(s)
	if err != nil {
		return nil
	}
	return b
}

// size is how many bytes are kept, roughly.
func (l *lines) size() int {
	if l == nil {
		return 0
	}
	return len(l.programs) + len(l.names) + 24*len(l.sequences)
}

// index notes the sequences of all programs.
func (l *lines) index() {
	for rest := l.programs; len(rest) > 0 && len(l.sequences) < maxSequences; {
		at := len(l.programs) - len(rest)
		var p lineProgram
		var ok bool
		if p, rest, ok = readProgram(rest, l.order); !ok {
			continue
		}
		var low uint64
		begun := false
		p.run(func(r lineRow) bool {
			if !begun {
				low, begun = r.addr, true
			}
			if r.end {
				if low != 0 && low < r.addr { // at 0 is what the linker left out
					l.sequences = append(l.sequences, sequence{low, r.addr, uint32(at)})
				}
				begun = false
			}
			return len(l.sequences) < maxSequences
		})
	}
	slices.SortFunc(l.sequences, func(a, b sequence) int { return cmp.Compare(a.low, b.low) })
}

// find returns the source line of the instruction at addr; "" and 0 when it is not known, or
// the compiler made it of none.
func (l *lines) find(addr uint64) (file string, line int) {
	i, found := slices.BinarySearchFunc(l.sequences, addr, func(s sequence, addr uint64) int {
		return cmp.Compare(s.low, addr)
	})
	if !found {
		i--
	}
	if i < 0 || addr >= l.sequences[i].high {
		return "", 0
	}
	s := l.sequences[i]
	p, _, _ := readProgram(l.programs[s.program:], l.order)
	var before, at lineRow
	in := false // the sequence
	p.run(func(r lineRow) bool {
		if in && before.addr <= addr && addr < r.addr {
			at = before
			return false
		}
		in = (in || r.addr == s.low) && !r.end
		before = r
		return true
	})
	if at.line == 0 || at.line > maxLine {
		return "", 0
	}
	return p.fileName(at.file, l.names), int(at.line)
}

// maxLine is the last line that a source file may have.
const maxLine = 1<<31 - 1
