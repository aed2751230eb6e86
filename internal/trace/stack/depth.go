package stack

import (
	"debug/elf"

	"github.com/go-delve/delve/pkg/dwarf/frame"
	"golang.org/x/arch/x86/x86asm"
)

// maxFunction bounds the machine code of a function that is followed, in bytes.
const maxFunction = 64 << 10

// conclude sets the frame pointer (rbp) that a frame's address is computed from, where it is
// not known: functions that have no frame pointer themselves, such as libc's, need not save
// their caller's. The stack pointer is known in every frame, and the function's machine code
// says how far it is from the frame's address. It reports whether it could tell.
func (m *module) conclude(a *arch, r *row, pc uint64, called bool, regs *registers) bool {
	_, known := regs.get(r.cfa.reg)
	sp, ok := regs.get(a.sp)
	if known || !ok || m.machine != elf.EM_X86_64 || r.cfa.kind != frame.RuleCFA || r.cfa.reg != rbp {
		return false
	}
	if r.depth == 0 {
		r.depth = m.depth(r, pc, called)
	}
	if r.depth <= 0 {
		return false
	}
	regs.set(rbp, sp+uint64(r.depth)-uint64(r.cfa.offset))
	return true
}

const rbp = 6 // its DWARF number

// depth returns how many bytes the stack pointer is below the frame's address at pc, or
// unsure. The code must be seen to set the frame pointer: a part that was moved away from its
// function begins with a frame.
func (m *module) depth(r *row, pc uint64, called bool) int64 {
	first, err := m.row(r.begin)
	if err != nil || first.cfa.kind != frame.RuleCFA || first.cfa.reg != amd64.sp || first.cfa.offset != 8 ||
		r.end-r.begin > maxFunction {
		return unsure
	}
	code, err := m.read(r.begin, int(r.end-r.begin))
	if err != nil {
		return unsure
	}
	f := flow{code: code, depths: make([]int64, len(code))}
	d := f.at(int(pc-r.begin), called)
	if f.pointer != r.cfa.offset {
		return unsure
	}
	return d
}

// A flow follows the machine code of a function along all its ways, and keeps the distance
// between the frame's address and the stack pointer before each instruction. What is read may
// be anything: each instruction is looked at twice at most.
type flow struct {
	code    []byte
	depths  []int64 // by offset in code: 0 where no way leads to
	todo    []int   // offsets
	pointer int64   // the depth where rbp is set to the stack pointer; 0 where it is not
}

// unsure is the depth where it depends on the way, or on data, as behind alloca(3).
const unsure = -1

// at returns the depth before the instruction that covers an offset, or unsure. Where it was
// called from, that must be a call, which leaves the stack pointer as it was.
func (f *flow) at(offset int, called bool) int64 {
	f.reach(0, 8) // the call has pushed the return address
	found := int64(0)
	for len(f.todo) > 0 {
		at := f.todo[len(f.todo)-1]
		f.todo = f.todo[:len(f.todo)-1]
		i, err := x86asm.Decode(f.code[at:], 64)
		if n := endbr64(f.code[at:]); n > 0 {
			i, err = x86asm.Inst{Op: x86asm.NOP, Len: n}, nil
		}
		if err != nil || !f.follow(at, &i) {
			return unsure
		}
		if at > offset || offset >= at+i.Len {
			continue
		}
		d := f.depths[at]
		if called != (i.Op == x86asm.CALL) || found != 0 && found != d {
			return unsure
		}
		found = d
	}
	if found == 0 {
		return unsure
	}
	return found
}

// endbr64 returns the length of ENDBR64, which the decoder does not know, or 0.
func endbr64(code []byte) int {
	if len(code) >= 4 && [4]byte(code) == [4]byte{0xf3, 0x0f, 0x1e, 0xfa} {
		return 4
	}
	return 0
}

// reach notes that a way leads to an offset.
func (f *flow) reach(offset int, depth int64) {
	if offset < 0 || offset >= len(f.code) {
		return // another function, or another part of this one
	}
	switch f.depths[offset] {
	case depth, unsure:
		return
	case 0:
		f.depths[offset] = depth
	default:
		f.depths[offset] = unsure
	}
	f.todo = append(f.todo, offset)
}

// follow goes on from an instruction. It reports false where it cannot tell all the ways.
func (f *flow) follow(at int, i *x86asm.Inst) bool {
	next, depth := at+i.Len, after(i, f.depths[at])
	if i.Op == x86asm.MOV && i.Args[0] == x86asm.RBP && i.Args[1] == x86asm.RSP {
		if f.pointer != 0 && f.pointer != depth {
			return false
		}
		f.pointer = depth
	}
	target, jumps := i.Args[0].(x86asm.Rel)
	switch i.Op {
	case x86asm.RET, x86asm.HLT, x86asm.UD1, x86asm.UD2:
	case x86asm.JMP:
		if !jumps {
			return tailCall(i) // anything else may be a table of a switch
		}
		f.reach(next+int(target), depth)
	case x86asm.CALL:
		f.reach(next, depth)
	default:
		if jumps {
			f.reach(next+int(target), depth)
		}
		f.reach(next, depth)
	}
	return true
}

// tailCall reports whether a jump goes where the dynamic linker has put an address.
func tailCall(i *x86asm.Inst) bool {
	m, ok := i.Args[0].(x86asm.Mem)
	return ok && m.Base == x86asm.RIP && m.Index == 0
}

// after returns the depth behind an instruction.
func after(i *x86asm.Inst, depth int64) int64 {
	switch i.Op {
	case x86asm.CALL, x86asm.CMP, x86asm.TEST:
		return depth
	case x86asm.PUSH, x86asm.PUSHFQ:
		return moved(i, depth, 8)
	case x86asm.POP, x86asm.POPFQ:
		if !isStack(i.Args[0]) {
			return moved(i, depth, -8)
		}
	case x86asm.ENTER, x86asm.LEAVE, x86asm.PUSHF, x86asm.POPF:
		return unsure
	}
	swaps := i.Op == x86asm.XCHG || i.Op == x86asm.XADD
	if !isStack(i.Args[0]) && !(swaps && isStack(i.Args[1])) {
		return depth
	}
	n, constant := i.Args[1].(x86asm.Imm)
	m, _ := i.Args[1].(x86asm.Mem)
	switch {
	case i.Args[0] != x86asm.RSP:
	case i.Op == x86asm.SUB && constant:
		return moved(i, depth, int64(n))
	case i.Op == x86asm.ADD && constant:
		return moved(i, depth, -int64(n))
	case i.Op == x86asm.LEA && m.Base == x86asm.RSP && m.Index == 0:
		return moved(i, depth, -m.Disp)
	}
	return unsure
}

// moved returns the depth behind an instruction that moves the stack pointer.
func moved(i *x86asm.Inst, depth, by int64) int64 {
	if depth += by; depth == unsure+by || depth <= 0 || depth > maxStack || i.DataSize == 16 {
		return unsure
	}
	return depth
}

// isStack reports whether an argument is the stack pointer, or a part of it.
func isStack(a x86asm.Arg) bool {
	return a == x86asm.RSP || a == x86asm.ESP || a == x86asm.SP || a == x86asm.SPB
}
