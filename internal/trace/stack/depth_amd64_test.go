package stack

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-delve/delve/pkg/dwarf/frame"
	"golang.org/x/arch/x86/x86asm"
)

// code is machine code, with what it does behind //.
func code(t testing.TB, text string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(text) {
		bytes, _, _ := strings.Cut(line, "//")
		digits.WriteString(strings.Join(strings.Fields(bytes), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	enter = "f3 0f 1e fa // endbr64\n" + "55 // push %rbp\n" + "48 89 e5 // mov %rsp,%rbp\n" // 8 bytes
	call  = "e8 00 01 00 00 // call\n"
)

// depths are of functions, at the offset of a call or of another instruction.
var depths = []struct {
	name, code string
	at         int
	called     bool
	want       int64
}{
	{"at once", call, 0, true, 8},
	{"a frame", enter + "53 // push %rbx\n 48 83 ec 58 // sub $0x58,%rsp\n" + call, 13, true, 112},
	{"the call's last byte", enter + "48 83 ec 10 // sub $16,%rsp\n" + call, 16, true, 32},
	{"a large frame", enter + "48 81 ec 00 10 00 00 // sub $4096,%rsp\n" + call, 15, true, 4112},
	{"pushed arguments", enter + "68 01 01 00 00 // push $0x101\n 6a 01 // push $1\n" + call, 15, true, 32},
	{"they are popped", enter + "6a 01 // push $1\n" + call + "59 // pop %rcx\n" + call, 16, true, 16},
	{"by addition", enter + "6a 01 // push $1\n 48 83 c4 08 // add $8,%rsp\n" + call, 14, true, 16},
	{"by an address", enter + "48 8d 64 24 f0 // lea -16(%rsp),%rsp\n" + call, 13, true, 32},
	{"two ways, one depth", enter + "74 01 // je\n 90 // nop\n" + call, 11, true, 16},
	{"two ways, two depths", enter + "74 01 // je\n 50 // push %rax\n" + call, 11, true, unsure},
	{"a loop", enter + "90 // nop\n" + call + "75 f8 // jne\n", 9, true, 16},
	{"a loop that takes more each time", enter + "50 // push %rax\n" + call + "75 f8 // jne\n", 9, true, unsure},
	{"behind a return", enter + "c3 // ret\n" + call, 9, true, unsure},
	{"behind a jump over it", enter + "eb 05 // jmp\n" + call + call, 15, true, 16},
	{"alloca", enter + "48 29 c4 // sub %rax,%rsp\n" + call, 11, true, unsure},
	{"alloca on one way", enter + "74 03 // je\n 48 29 c4 // sub %rax,%rsp\n" + call, 13, true, unsure},
	{"aligned", enter + "48 83 e4 e0 // and $-32,%rsp\n" + call, 12, true, unsure},
	{"32 bits of it", enter + "83 ec 08 // sub $8,%esp\n" + call, 11, true, unsure},
	{"16 bits are pushed", enter + "66 50 // push %ax\n" + call, 10, true, unsure},
	{"popped into itself", enter + "5c // pop %rsp\n" + call, 9, true, unsure},
	{"exchanged", enter + "48 94 // xchg %rax,%rsp\n" + call, 10, true, unsure},
	{"exchanged, the other way", enter + "48 87 e0 // xchg %rsp,%rax\n" + call, 11, true, unsure},
	{"left", enter + "c9 // leave\n" + call, 9, true, unsure},
	{"more is popped than was pushed", "58 58 // pop %rax\n" + call, 2, true, unsure},
	{"a switch", enter + "74 02 // je\n ff e0 // jmp *%rax\n" + call, 12, true, unsure},
	{"a jump through the linker", enter + "74 06 // je\n ff 25 00 01 00 00 // jmp *256(%rip)\n" + call, 16, true, 16},
	{"no call", enter + "90 // nop\n", 8, true, unsure},
	{"a system call", enter + "0f 05 // syscall\n 90 // nop\n", 10, false, 16},
	{"no instruction", enter + "06 // push %es\n" + call, 9, true, unsure},
	{"an end within an instruction", enter + "e8 00", 8, true, unsure},
	{"nothing", "", 0, true, unsure},
}

func TestDepths(t *testing.T) {
	for _, c := range depths {
		t.Run(c.name, func(t *testing.T) {
			b := code(t, c.code)
			f := flow{code: b, depths: make([]int64, len(b))}
			if got := f.at(c.at, c.called); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

// FuzzDepths: any machine code is followed to an end, and no depth is more than a stack has.
func FuzzDepths(f *testing.F) {
	for _, c := range depths {
		f.Add(code(f, c.code), uint16(c.at), c.called)
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16, called bool) {
		f := flow{code: b, depths: make([]int64, len(b))}
		if d := f.at(int(at), called); d == 0 || d < unsure || d > maxStack {
			t.Fatal(d)
		}
	})
}

// TestDepthsAgainstCallFrameInformation compares with what the compiler says, at one call in
// every fourth function of real files whose frame's address is computed from the stack pointer.
func TestDepthsAgainstCallFrameInformation(t *testing.T) {
	for _, pattern := range []string{"/usr/lib/*-linux-gnu/libvirt.so.0", "/usr/lib/*-linux-gnu/libc.so.6"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(err, "no file is ", pattern)
		}
		f, err := os.Open(files[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := newModule(files[0], f)
		if err != nil {
			t.Fatal(err)
		}
		told, all := 0, 0
		for i := 0; i < len(m.index)/8; i += 4 {
			got, want := depthAtCall(t, m, m.base+uint64(int64(int32(m.elf.ByteOrder.Uint32(m.index[8*i:])))), i)
			if want == 0 {
				continue
			}
			if all++; got != unsure {
				told++
			}
			if got != unsure && got != want {
				t.Errorf("%s, function %d: %d, want %d", m.name, i, got, want)
			}
		}
		t.Logf("%s: %d of %d are told", m.name, told, all)
		if all < 200 || 10*told < 9*all {
			t.Errorf("too few in %s", m.name)
		}
	}
}

// depthAtCall returns the depth at a call of a function, and what it is by the call frame
// information; 0 where that does not say it, or there is no call.
func depthAtCall(t *testing.T, m *module, begin uint64, nth int) (got, want int64) {
	t.Helper()
	first, err := m.row(begin)
	if err != nil || begin != first.begin || first.cfa.reg != amd64.sp || first.cfa.offset != 8 {
		return 0, 0
	}
	b, err := m.read(first.begin, int(first.end-first.begin))
	if err != nil {
		t.Fatal(err)
	}
	const nop = 0x90 // begins a part that was moved away, which has a frame from its second byte on
	calls := calls(b)
	if len(calls) == 0 || b[0] == nop {
		return 0, 0
	}
	at := calls[nth/4%len(calls)]
	r, err := m.row(begin + uint64(at))
	if err != nil || r.cfa.kind != frame.RuleCFA || r.cfa.reg != amd64.sp {
		return 0, 0
	}
	f := flow{code: b, depths: make([]int64, len(b))}
	return f.at(at, true), r.cfa.offset
}

// calls returns the offsets of the calls in machine code.
func calls(b []byte) (all []int) {
	for at := 0; at < len(b); {
		i, err := x86asm.Decode(b[at:], 64)
		if err != nil {
			at += max(1, endbr64(b[at:]))
			continue
		}
		if i.Op == x86asm.CALL {
			all = append(all, at)
		}
		at += i.Len
	}
	return all
}
