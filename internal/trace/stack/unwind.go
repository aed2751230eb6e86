package stack

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/go-delve/delve/pkg/dwarf/frame"
	"github.com/go-delve/delve/pkg/dwarf/op"
)

// arch says how a processor's registers are copied and numbered.
type arch struct {
	regs   []uint64 // DWARF number of each word of struct pt_regs; none for those without
	pc, sp uint64   // DWARF numbers; the pc's is the return address's where it has none of its own
	count  uint64   // DWARF numbers in use
	bits   uint64   // of a return address
	// Numbers of system calls: include/uapi/asm-generic/unistd.h and
	// arch/x86/entry/syscalls/syscall_64.tbl of Linux.
	futex, wait4 int
}

const none = ^uint64(0)

// amd64 has r15 to r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss.
var amd64 = arch{
	regs: []uint64{15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5, none, 16, none, none, 7, none},
	pc:   16, sp: 7, count: 17, bits: ^uint64(0), futex: 202, wait4: 61,
}

// arm64 has x0 to x30, sp, pc, pstate. Its pc has no DWARF number: it takes one
// past the others.
var arm64 = arch{
	regs: []uint64{
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
		30, 31, 32, none,
	},
	pc: 32, sp: 31, count: 33, bits: addressBits, futex: 98, wait4: 260,
}

// registers are those of one frame, by DWARF number.
type registers struct {
	value [33]uint64
	known uint64 // a bit for each
}

func (r *registers) get(n uint64) (uint64, bool) {
	if n >= uint64(len(r.value)) || r.known&(1<<n) == 0 {
		return 0, false
	}
	return r.value[n], true
}

func (r *registers) set(n, v uint64) {
	if n < uint64(len(r.value)) {
		r.value[n] = v
		r.known |= 1 << n
	}
}

// load reads a copy of struct pt_regs.
func (a *arch) load(b []byte) (registers, bool) {
	var r registers
	if len(b) < 8*len(a.regs) {
		return r, false
	}
	for i, n := range a.regs {
		if n != none {
			r.set(n, binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	return r, true
}

// memory is what was copied of the stack.
type memory struct {
	base  uint64
	bytes []byte
}

var errNotCopied = errors.New("the copy of the stack ends before the stack does")

func (s *memory) word(addr uint64) (uint64, error) {
	if off := addr - s.base; addr >= s.base && off+8 > off && off+8 <= uint64(len(s.bytes)) {
		return binary.LittleEndian.Uint64(s.bytes[off:]), nil
	}
	return 0, errNotCopied
}

func (s *memory) read(b []byte, addr uint64) (int, error) {
	if off := addr - s.base; addr >= s.base && off <= uint64(len(s.bytes)) &&
		uint64(len(s.bytes))-off >= uint64(len(b)) {
		return copy(b, s.bytes[off:]), nil
	}
	return 0, errNotCopied
}

// step turns a frame's registers into its caller's.
func (a *arch) step(r *row, regs *registers, stack *memory) (registers, error) {
	cfa, err := a.cfa(r, regs, stack)
	if err != nil {
		return registers{}, err
	}
	next := *regs
	next.set(a.sp, cfa)
	for i := range r.regs {
		s := &r.regs[i]
		v, err := a.value(&s.rule, cfa, regs, stack)
		if err != nil {
			if s.reg == r.ra {
				return registers{}, err
			}
			next.known &^= 1 << (s.reg & 63)
			continue
		}
		next.set(s.reg, v)
	}
	ra, ok := next.get(r.ra)
	if !ok {
		return registers{}, errors.New("the return address is unknown")
	}
	next.set(a.pc, ra&a.bits)
	return next, nil
}

func (a *arch) cfa(r *row, regs *registers, stack *memory) (uint64, error) {
	if r.cfa.kind == frame.RuleExpression {
		return a.evaluate(r.cfa.expression, 0, regs, stack)
	}
	v, ok := regs.get(r.cfa.reg)
	if r.cfa.kind != frame.RuleCFA || !ok {
		return 0, fmt.Errorf("the frame's address cannot be computed from register %d", r.cfa.reg)
	}
	return v + uint64(r.cfa.offset), nil
}

func (a *arch) value(u *rule, cfa uint64, regs *registers, stack *memory) (uint64, error) {
	switch u.kind {
	case frame.RuleOffset:
		return stack.word(cfa + uint64(u.offset))
	case frame.RuleValOffset:
		return cfa + uint64(u.offset), nil
	case frame.RuleExpression:
		addr, err := a.evaluate(u.expression, cfa, regs, stack)
		if err != nil {
			return 0, err
		}
		return stack.word(addr)
	case frame.RuleValExpression:
		return a.evaluate(u.expression, cfa, regs, stack)
	case frame.RuleRegister, frame.RuleSameVal:
		n := u.reg
		if v, ok := regs.get(n); ok && u.kind == frame.RuleRegister {
			return v, nil
		}
	}
	return 0, errors.New("a register is unknown")
}

// evaluate runs a DWARF expression. With a cfa, that stands on its stack at the
// beginning.
func (a *arch) evaluate(expression []byte, cfa uint64, regs *registers, stack *memory) (v uint64, err error) {
	defer noPanic("DWARF expression", &err)
	dw := make([]*op.DwarfRegister, a.count)
	for n := range dw {
		if v, ok := regs.get(uint64(n)); ok {
			dw[n] = &op.DwarfRegister{Uint64Val: v}
		}
	}
	all := op.NewDwarfRegisters(0, dw, binary.LittleEndian, a.pc, a.sp, none, none)
	if cfa != 0 {
		all.CFA = int64(cfa)
		expression = append([]byte{byte(op.DW_OP_call_frame_cfa)}, expression...)
	}
	n, pieces, err := op.ExecuteStackProgram(*all, expression, 8, stack.read)
	if err == nil && len(pieces) > 0 {
		err = errors.New("a DWARF expression names no address")
	}
	return uint64(n), err
}
