package usdt

import (
	"encoding/binary"
)

// Function returns the start of the function that holds an address, from the
// file's unwind tables, which also stripped files have. ok is false unless the
// start is a function's entry: where the caller's return address is in its
// place, as the tables' initial rule says. The parts that a compiler splits off
// begin otherwise.
func (f *File) Function(addr uint64) (start uint64, ok bool) {
	hdr := f.elf.Section(".eh_frame_hdr")
	frames := f.elf.Section(".eh_frame")
	if hdr == nil || frames == nil || hdr.Size > maxSymbols || frames.Size > maxSymbols {
		return 0, false
	}
	table, err := hdr.Data()
	if err != nil {
		return 0, false
	}
	start, fde, ok := searchFrames(table, hdr.Addr, addr, f.elf.ByteOrder)
	if !ok || fde < frames.Addr || fde-frames.Addr >= frames.Size {
		return 0, false
	}
	data, err := frames.Data()
	if err != nil {
		return 0, false
	}
	return start, isEntry(data[fde-frames.Addr:], fde, start, addr, f.elf.ByteOrder)
}

// The one form of .eh_frame_hdr that linkers write: a sorted table of 32-bit
// offsets from the section (LSB, "Exception Frames").
const (
	encSData4PCRel  = 0x1b
	encUData4       = 0x03
	encSData4Header = 0x3b
)

// searchFrames finds the table's last entry that begins at or before addr.
func searchFrames(b []byte, at, addr uint64, order binary.ByteOrder) (start, fde uint64, ok bool) {
	if len(b) < 12 || b[0] != 1 || b[1] != encSData4PCRel || b[2] != encUData4 || b[3] != encSData4Header {
		return 0, 0, false
	}
	n := min(uint64(order.Uint32(b[8:])), uint64(len(b)-12)/8)
	word := func(i uint64) uint64 { return at + uint64(int64(int32(order.Uint32(b[12+i:])))) }
	lo, hi := uint64(0), n
	for lo < hi {
		mid := lo + (hi-lo)/2
		if word(8*mid) <= addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0, 0, false
	}
	return word(8 * (lo - 1)), word(8*(lo-1) + 4), true
}

// isEntry reports whether a frame description at address at covers start to
// addr, and leaves the initial rule as it is at start.
func isEntry(b []byte, at, start, addr uint64, order binary.ByteOrder) bool {
	const fixed = 16 // length, CIE pointer, begin, range
	if len(b) < fixed+1 {
		return false
	}
	length := order.Uint32(b)
	if length < fixed-4+1 || uint64(length)+4 > uint64(len(b)) {
		return false
	}
	begin := at + 8 + uint64(int64(int32(order.Uint32(b[8:]))))
	if begin != start || addr-start >= uint64(order.Uint32(b[12:])) {
		return false
	}
	b = b[fixed : length+4]
	aug := uint64(b[0]) // the augmentation's length; one byte suffices for a pointer
	if aug >= 0x80 || aug+1 > uint64(len(b)) {
		return false
	}
	for _, op := range b[aug+1:] {
		switch {
		case op == 0: // DW_CFA_nop
		case op>>6 == 1, op >= 2 && op <= 4: // DW_CFA_advance_loc and its longer forms
			return true
		default:
			return false
		}
	}
	return true
}
