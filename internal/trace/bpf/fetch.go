package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// Registers of the generated code.
const (
	atContext = asm.R6 // struct pt_regs at the probe
	atArgs    = asm.R7 // probe.c's struct args
	message   = asm.R8 // what fetch returns
)

// specialize replaces the body of probe.c's fetch by code that reads the
// arguments of these sites, by their numbers.
func specialize(insns asm.Instructions, sites map[uint32]Site) (asm.Instructions, error) {
	start, end := -1, len(insns)
	for i := range insns {
		switch {
		case start >= 0 && btf.FuncMetadata(&insns[i]) != nil:
			end = min(end, i)
		case insns[i].Symbol() == "fetch":
			start = i
		}
	}
	if start < 0 {
		return nil, errors.New("the probe program has no function fetch")
	}
	body := fetch(sites)
	body[0].Metadata = insns[start].Metadata // the function's name and type
	return slices.Concat(insns[:start], body, insns[end:]), nil
}

// fetch is the code of the function: a chain of comparisons, messages first as
// they are the most frequent, and for each site a straight line.
func fetch(sites map[uint32]Site) asm.Instructions {
	ids := slices.SortedFunc(maps.Keys(sites), func(a, b uint32) int {
		return cmp.Or(-cmp.Compare(sites[a].messages(), sites[b].messages()), cmp.Compare(a, b))
	})
	code := asm.Instructions{
		asm.Mov.Reg(atContext, asm.R1),
		asm.Mov.Reg(atArgs, asm.R2),
		asm.Mov.Imm(message, 0),
	}
	var lines asm.Instructions
	for _, id := range ids {
		label := fmt.Sprintf("fetch%d", id)
		code = append(code, asm.JEq.Imm(asm.R3, int32(id), label))
		line := sites[id].fetch()
		line[0] = line[0].WithSymbol(label)
		lines = append(lines, line...)
	}
	code = append(code, asm.Mov.Imm(asm.R0, 0), asm.Return())
	return append(code, lines...)
}

// messages is 1 for a site of messages, else 0.
func (s Site) messages() int {
	if s.Capture == Message {
		return 1
	}
	return 0
}

// fetch is the code that reads the site's arguments.
func (s Site) fetch() asm.Instructions {
	var code asm.Instructions
	for i, a := range s.Args[:min(len(s.Args), usdt.MaxArgs)] {
		if i == 1 && s.pointsToMessage() {
			code = append(code, lengthAndMessage(a)...)
		} else {
			code = append(code, argument(a)...)
		}
		code = append(code, asm.StoreMem(atArgs, int16(8*i), asm.R0, asm.DWord))
	}
	return append(code, asm.Mov.Reg(asm.R0, message), asm.Return())
}

// argument is the code that reads one argument into R0. What it uses of the
// stack is its own: the last words of the function's frame.
func argument(a usdt.Arg) asm.Instructions {
	var code asm.Instructions
	switch a.Mode {
	case usdt.Const:
		return asm.Instructions{asm.LoadImm(asm.R0, a.Disp, asm.DWord)}
	case usdt.Reg:
		code = append(code, register(asm.R0, a.Reg))
		if a.Shift > 0 {
			code = append(code, asm.RSh.Imm(asm.R0, int32(a.Shift)))
		}
	case usdt.Mem:
		code = append(code, address(a)...)
		code = append(code, read(-8, int32(a.Size))...)
		code = append(code, asm.LoadMem(asm.R0, asm.RFP, -8, asm.DWord))
	default:
		return asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	}
	return append(code, widen(a)...)
}

// lengthAndMessage is the code that reads the length of a message into R0, and
// the pointer to its bytes, which stands before, with it.
func lengthAndMessage(a usdt.Arg) asm.Instructions {
	a.Disp -= bufferBeforeLength
	code := append(address(a), read(-16, 16)...)
	code = append(code,
		asm.LoadMem(message, asm.RFP, -16, asm.DWord),
		asm.LoadMem(asm.R0, asm.RFP, -16+bufferBeforeLength, asm.DWord),
	)
	return append(code, widen(a)...)
}

// register loads a register at the probe; one that there is not is 0.
func register(to asm.Register, n uint8) asm.Instruction {
	if int(n)*8 >= RegsSize() {
		return asm.Mov.Imm(to, 0)
	}
	return asm.LoadMem(to, atContext, int16(n)*8, asm.DWord)
}

// address is the code that computes a memory operand's address into R3.
func address(a usdt.Arg) asm.Instructions {
	code := asm.Instructions{register(asm.R3, a.Reg)}
	if a.Index != usdt.NoReg {
		code = append(code, register(asm.R1, a.Index))
		switch a.Extend {
		case usdt.ZeroExtend:
			code = append(code, asm.LSh.Imm(asm.R1, 32), asm.RSh.Imm(asm.R1, 32))
		case usdt.SignExtend:
			code = append(code, asm.LSh.Imm(asm.R1, 32), asm.ArSh.Imm(asm.R1, 32))
		}
		code = append(code, asm.LSh.Imm(asm.R1, int32(a.Scale&7)), asm.Add.Reg(asm.R3, asm.R1))
	}
	if a.Disp != 0 {
		code = append(code, asm.LoadImm(asm.R1, a.Disp, asm.DWord), asm.Add.Reg(asm.R3, asm.R1))
	}
	return code
}

// read is the code that reads so many bytes at the user's address R3 onto the
// stack. What cannot be read is 0.
func read(at int16, size int32) asm.Instructions {
	code := asm.Instructions{}
	if size < 8 {
		code = append(code, asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.RFP, at, asm.R1, asm.DWord))
	}
	return append(code,
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, int32(at)),
		asm.Mov.Imm(asm.R2, size),
		asm.FnProbeReadUser.Call(),
	)
}

// widen is the code that sign- or zero-extends R0.
func widen(a usdt.Arg) asm.Instructions {
	unused := int32(64 - 8*int(a.Size))
	switch {
	case unused <= 0:
		return nil
	case a.Signed:
		return asm.Instructions{asm.LSh.Imm(asm.R0, unused), asm.ArSh.Imm(asm.R0, unused)}
	}
	return asm.Instructions{asm.LSh.Imm(asm.R0, unused), asm.RSh.Imm(asm.R0, unused)}
}
