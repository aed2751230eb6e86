package usdt

import (
	"debug/elf"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MaxArgs is how many arguments of a probe are kept; the rest of a longer list
// is dropped. SystemTap's macros allow 12, libvirt's probes have at most 9.
const MaxArgs = 10

// Mode says where an argument is.
type Mode uint8

// The modes. An argument that cannot be read in the kernel (a floating-point
// register, a symbol that is not in the file) has mode None and reads as 0.
const (
	None Mode = iota
	Const
	Reg
	Mem
)

// Extend says how a 32-bit index register is widened.
type Extend uint8

// The extensions.
const (
	NoExtend Extend = iota
	ZeroExtend
	SignExtend
)

// NoReg stands for an absent register.
const NoReg = 0xff

// Arg is one argument of a probe: its size and where to find it when the probe
// is hit. Registers are counted in words from the start of the kernel's struct
// pt_regs.
type Arg struct {
	Mode   Mode
	Signed bool
	Size   uint8 // bytes: 1, 2, 4 or 8
	Reg    uint8 // the register, or the base of a memory operand; NoReg if none
	Index  uint8 // index register of a memory operand, or NoReg
	Scale  uint8 // the index is shifted left by this
	Extend Extend
	Shift  uint8  // bits to shift a register right by: 8 for %ah and its like
	Disp   int64  // displacement, or the constant
	Symbol string // of a PC-relative operand that names one; see resolve
}

// ParseArgs reads the argument string of a note, as SystemTap's sys/sdt.h
// writes it, for x86-64 or arm64. An operand that is understood but cannot be
// read gets mode None; one that is not in the grammar is an error.
func ParseArgs(spec string, machine elf.Machine) ([]Arg, error) {
	var operand func(string, *Arg) error
	switch machine {
	case elf.EM_X86_64:
		operand = operandX86
	case elf.EM_AARCH64:
		operand = operandARM64
	default:
		return nil, fmt.Errorf("argument grammar of %v is not known", machine)
	}
	var args []Arg
	for _, field := range fields(spec) {
		if len(args) == MaxArgs {
			break
		}
		a := Arg{Size: 8, Reg: NoReg, Index: NoReg}
		op := field
		if size, rest, ok := strings.Cut(field, "@"); ok {
			float, err := a.setSize(size)
			if err != nil {
				return nil, fmt.Errorf("argument %q: %w", field, err)
			}
			if float {
				args = append(args, a)
				continue
			}
			op = rest
		}
		if err := operand(strings.TrimSpace(op), &a); err != nil {
			return nil, fmt.Errorf("argument %q: %w", field, err)
		}
		args = append(args, a)
	}
	return args, nil
}

// setSize reads the part before the @: a size in bytes, negative when the
// argument is signed, with an f behind it when it is a floating-point number.
func (a *Arg) setSize(s string) (float bool, err error) {
	s, float = strings.CutSuffix(s, "f")
	n, err := strconv.Atoi(s)
	if err != nil {
		return false, fmt.Errorf("size %q is not a number", s)
	}
	a.Signed = n < 0
	if n < 0 {
		n = -n
	}
	if n != 1 && n != 2 && n != 4 && n != 8 {
		return false, fmt.Errorf("size %d is not 1, 2, 4 or 8", n)
	}
	a.Size = uint8(n)
	return float, nil
}

// fields splits an argument string at blanks, but not inside brackets: arm64
// writes [sp, 12].
func fields(spec string) []string {
	var out []string
	depth, start := 0, -1
	for i := 0; i < len(spec); i++ {
		switch c := spec[i]; {
		case c == '[' || c == '(':
			depth++
		case c == ']' || c == ')':
			depth--
		}
		blank := spec[i] == ' ' || spec[i] == '\t'
		switch {
		case start < 0 && !blank:
			start = i
		case start >= 0 && blank && depth <= 0:
			out = append(out, spec[start:i])
			start = -1
		}
	}
	if start >= 0 {
		out = append(out, spec[start:])
	}
	return out
}

// operandX86 reads an AT&T operand: $1, %rax, 16(%rbx), -8(%rbp,%rax,4),
// symbol+8(%rip), (%rsp), 0x601040.
func operandX86(op string, a *Arg) error {
	switch {
	case strings.HasPrefix(op, "$"):
		return a.constant(op[1:])
	case strings.HasPrefix(op, "%") && !strings.Contains(op, ":"):
		reg, shift, ok := registerX86(op[1:])
		if !ok {
			return vectorOr(op[1:], "xyz")
		}
		a.Mode, a.Reg, a.Shift = Reg, reg, shift
		return nil
	}
	disp, inner, ok := strings.Cut(op, "(")
	if !ok {
		// An absolute address, or a symbol without a base: not for PIE.
		if disp == "" {
			return fmt.Errorf("is empty")
		}
		if n, err := integer(disp); err == nil {
			a.Mode, a.Disp = Mem, n
		}
		return nil
	}
	inner, ok = strings.CutSuffix(inner, ")")
	if !ok {
		return fmt.Errorf("has no closing parenthesis")
	}
	// A segment prefix (%fs:) wants the thread's base: not readable.
	segment := strings.HasPrefix(disp, "%")
	parts := strings.Split(inner, ",")
	if len(parts) > 3 {
		return fmt.Errorf("has more than base, index and scale")
	}
	if base := strings.TrimSpace(parts[0]); base != "" {
		reg, _, ok := registerX86(strings.TrimPrefix(base, "%"))
		if !ok {
			return fmt.Errorf("base %s is no register", base)
		}
		a.Reg = reg
	}
	if len(parts) > 1 {
		index := strings.TrimSpace(parts[1])
		reg, _, ok := registerX86(strings.TrimPrefix(index, "%"))
		if !ok {
			return fmt.Errorf("index %s is no register", index)
		}
		a.Index = reg
	}
	if len(parts) > 2 {
		switch strings.TrimSpace(parts[2]) {
		case "1":
		case "2":
			a.Scale = 1
		case "4":
			a.Scale = 2
		case "8":
			a.Scale = 3
		default:
			return fmt.Errorf("scale %s is not 1, 2, 4 or 8", parts[2])
		}
	}
	if segment {
		return nil
	}
	return a.displacement(disp)
}

// displacement reads what stands before the parenthesis: nothing, a number, or
// with %rip a symbol with an offset.
func (a *Arg) displacement(disp string) error {
	if disp == "" {
		a.Mode = Mem
		return nil
	}
	if n, err := integer(disp); err == nil {
		a.Mode, a.Disp = Mem, n
		return nil
	}
	sym, off := disp, ""
	if i := strings.LastIndexAny(disp, "+-"); i > 0 {
		sym, off = disp[:i], disp[i:]
	}
	if off != "" {
		n, err := integer(off)
		if err != nil {
			return fmt.Errorf("displacement %q is not a number", disp)
		}
		a.Disp = n
	}
	if a.Reg != pcX86 || a.Index != NoReg {
		return nil // a symbol as a displacement from another register: not readable
	}
	a.Mode, a.Symbol = Mem, sym
	return nil
}

const pcX86 = 16 // rip in struct pt_regs

// registersX86 counts words in arch/x86/include/asm/ptrace.h's struct pt_regs.
var registersX86 = map[string]uint8{
	"r15": 0, "r14": 1, "r13": 2, "r12": 3, "bp": 4, "bx": 5, "r11": 6, "r10": 7, "r9": 8, "r8": 9,
	"ax": 10, "cx": 11, "dx": 12, "si": 13, "di": 14, "ip": pcX86, "sp": 19,
}

func registerX86(name string) (reg, shift uint8, ok bool) {
	if name == "" {
		return 0, 0, false
	}
	if reg, ok := registersX86[name]; ok { // ax, r8
		return reg, 0, true
	}
	head, tail := name[0], name[len(name)-1]
	switch {
	case (head == 'r' || head == 'e') && len(name) == 3: // rax, eax
		if reg, ok := registersX86[name[1:]]; ok && reg >= 4 && (reg < 6 || reg > 9) {
			return reg, 0, true
		}
	case len(name) == 2 && tail == 'h' && strings.IndexByte("abcd", head) >= 0: // ah
		return registersX86[string(head)+"x"], 8, true
	case len(name) == 2 && tail == 'l' && strings.IndexByte("abcd", head) >= 0: // al
		return registersX86[string(head)+"x"], 0, true
	case len(name) == 3 && tail == 'l': // sil, dil, bpl, spl
		if reg, ok := registersX86[name[:2]]; ok && reg != pcX86 {
			return reg, 0, true
		}
	}
	if head == 'r' && strings.IndexByte("bwdl", tail) >= 0 { // r8b, r15d
		if reg, ok := registersX86[name[:len(name)-1]]; ok {
			return reg, 0, true
		}
	}
	return 0, 0, false
}

// operandARM64 reads an arm64 operand: x0, w1, sp, 12, [x19], [sp, 12],
// [x0, x1], [x0, x1, lsl 3], [x0, w1, sxtw 2].
func operandARM64(op string, a *Arg) error {
	inner, ok := strings.CutPrefix(op, "[")
	if !ok {
		if reg, _, ok := registerARM64(op); ok {
			a.Mode, a.Reg = Reg, reg
			return nil
		}
		if err := a.constant(strings.TrimPrefix(op, "#")); err == nil {
			return nil
		}
		return vectorOr(op, "vqdshb")
	}
	inner, ok = strings.CutSuffix(inner, "]")
	if !ok {
		return fmt.Errorf("has no closing bracket")
	}
	parts := strings.Split(inner, ",")
	if len(parts) > 3 {
		return fmt.Errorf("has more than base, index and shift")
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	reg, narrow, ok := registerARM64(parts[0])
	if !ok || narrow {
		return fmt.Errorf("base %q is no 64-bit register", parts[0])
	}
	a.Mode, a.Reg = Mem, reg
	if len(parts) == 1 {
		return nil
	}
	index, narrow, ok := registerARM64(parts[1])
	if !ok {
		n, err := integer(strings.TrimPrefix(parts[1], "#"))
		if err != nil {
			if strings.HasPrefix(strings.TrimPrefix(parts[1], "#"), ":") { // #:lo12:symbol
				a.Mode = None
				return nil
			}
			return fmt.Errorf("offset %q is not a number", parts[1])
		}
		if len(parts) == 3 {
			return fmt.Errorf("shifts a number")
		}
		a.Disp = n
		return nil
	}
	a.Index = index
	if narrow {
		a.Extend = ZeroExtend
	}
	if len(parts) == 3 {
		return a.shift(parts[2])
	}
	return nil
}

// shift reads the third part of an arm64 memory operand: lsl 3, sxtw #2, uxtw.
func (a *Arg) shift(s string) error {
	op, amount, _ := strings.Cut(s, " ")
	switch op {
	case "lsl", "uxtx", "sxtx":
		a.Extend = NoExtend
	case "uxtw":
		a.Extend = ZeroExtend
	case "sxtw":
		a.Extend = SignExtend
	default:
		return fmt.Errorf("shift %q is not known", s)
	}
	if amount = strings.TrimPrefix(strings.TrimSpace(amount), "#"); amount == "" {
		return nil
	}
	n, err := strconv.ParseUint(amount, 10, 8)
	if err != nil || n > 4 {
		return fmt.Errorf("shift %q is not 0 to 4", s)
	}
	a.Scale = uint8(n)
	return nil
}

// registerARM64 counts words in struct user_pt_regs, with which arm64's struct
// pt_regs begins: x0 to x30, sp, pc.
func registerARM64(name string) (reg uint8, narrow, ok bool) {
	switch name {
	case "sp":
		return 31, false, true
	case "fp":
		return 29, false, true
	case "lr":
		return 30, false, true
	}
	if len(name) < 2 || name[0] != 'x' && name[0] != 'w' || name[1] == '+' {
		return 0, false, false
	}
	n, err := strconv.ParseUint(name[1:], 10, 8)
	if err != nil || n > 30 {
		return 0, false, false
	}
	return uint8(n), name[0] == 'w', true
}

// vectorOr accepts a vector or floating-point register, whose argument stays
// unreadable, and refuses anything else.
func vectorOr(name, first string) error {
	if name != "" && strings.IndexByte(first, name[0]) >= 0 && strings.ContainsAny(name[1:], "0123456789") &&
		!strings.ContainsAny(name, "@()[]%$ ") {
		return nil
	}
	return fmt.Errorf("%q is no register", name)
}

func (a *Arg) constant(s string) error {
	n, err := integer(s)
	if err != nil {
		return fmt.Errorf("constant %q is not a number", s)
	}
	a.Mode, a.Disp = Const, n
	return nil
}

// integer reads a C integer: decimal, octal or hexadecimal, with a sign; a
// number past the signed range is taken as unsigned.
func integer(s string) (int64, error) {
	s = strings.TrimSpace(s)
	if strings.Contains(s, "_") {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(s, 0, 64)
	if err == nil {
		return n, nil
	}
	u, uerr := strconv.ParseUint(strings.TrimPrefix(s, "+"), 0, 64)
	if uerr != nil || u <= math.MaxInt64 {
		return 0, err
	}
	return int64(u), nil
}
