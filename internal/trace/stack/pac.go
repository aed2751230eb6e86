package stack

import (
	"encoding/binary"

	"github.com/go-delve/delve/pkg/dwarf/frame"
)

// negateRAState is DW_CFA_AARCH64_negate_ra_state: from here on the return address
// is, or is no longer, signed. The library does not know it. A signature stands in
// bits that no address has, so nothing is lost by taking them off always.
const negateRAState = 0x2d

// addressBits are those of an arm64 process's addresses.
const addressBits = 1<<48 - 1

// forgetSigning replaces negateRAState by a nop in a program of call frame
// instructions. It stops at what it does not know.
func forgetSigning(program []byte) {
	for i := 0; i < len(program); {
		op := program[i]
		if op == negateRAState {
			program[i] = frame.DW_CFA_nop
		}
		n, ok := operands(program[i:])
		if !ok {
			return
		}
		i += n
	}
}

// operands returns the length of the instruction that b begins with.
func operands(b []byte) (int, bool) {
	numbers, block := 0, false // LEB128 numbers, and a block behind them
	switch op := b[0]; {
	case op&0xc0 == frame.DW_CFA_offset:
		numbers = 1
	case op&0xc0 != 0: // advance_loc, restore: in the byte itself
	case op == frame.DW_CFA_advance_loc1:
		return 2, true
	case op == frame.DW_CFA_advance_loc2:
		return 3, true
	case op == frame.DW_CFA_advance_loc4:
		return 5, true
	case op == frame.DW_CFA_nop, op == frame.DW_CFA_remember_state, op == frame.DW_CFA_restore_state:
	case op == frame.DW_CFA_restore_extended, op == frame.DW_CFA_undefined, op == frame.DW_CFA_same_value,
		op == frame.DW_CFA_def_cfa_register, op == frame.DW_CFA_def_cfa_offset, op == frame.DW_CFA_def_cfa_offset_sf,
		op == frame.DW_CFA_GNU_args_size:
		numbers = 1
	case op == frame.DW_CFA_offset_extended, op == frame.DW_CFA_register, op == frame.DW_CFA_def_cfa,
		op == frame.DW_CFA_offset_extended_sf, op == frame.DW_CFA_def_cfa_sf, op == frame.DW_CFA_val_offset,
		op == frame.DW_CFA_val_offset_sf:
		numbers = 2
	case op == frame.DW_CFA_def_cfa_expression:
		block = true
	case op == frame.DW_CFA_expression, op == frame.DW_CFA_val_expression:
		numbers, block = 1, true
	default:
		return 0, false
	}
	return operandBytes(b, numbers, block)
}

func operandBytes(b []byte, numbers int, block bool) (int, bool) {
	n := 1
	for range numbers {
		for n < len(b) && b[n]&0x80 != 0 {
			n++
		}
		n++
	}
	if !block {
		return n, true
	}
	if n >= len(b) {
		return 0, false
	}
	size, width := binary.Uvarint(b[n:])
	if width <= 0 || size > uint64(len(b)) {
		return 0, false
	}
	return n + width + int(size), true
}
