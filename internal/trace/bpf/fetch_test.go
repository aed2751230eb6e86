package bpf

import (
	"debug/elf"
	"os"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/usdt"
)

// hit is where the test's probe is: its arguments stand in registers, since Go
// passes the first ones so. It needs no stack: a function that makes its stack
// grow begins, and is hit, twice.
//
//go:noinline
//go:norace
//go:nosplit
func hit(n uint64, words *[4]uint64, index uint64) uint64 { return n + words[index&3] }

// Where a struct pt_regs has the first three arguments of a Go function.
var argRegs = map[string][3]uint8{"amd64": {10, 5, 11}, "arm64": {0, 1, 2}}

// TestArgumentsAreRead hits a probe whose arguments are of every form that the
// grammar of probes knows.
func TestArgumentsAreRead(t *testing.T) {
	t.Run("attached at once", func(t *testing.T) { argumentsAreRead(t, false) })
	t.Run("one by one", func(t *testing.T) { argumentsAreRead(t, true) })
}

func argumentsAreRead(t *testing.T, oneByOne bool) {
	posterntest.NeedRoot(t)
	reg, ok := argRegs[runtime.GOARCH]
	if !ok {
		posterntest.Missing(t, "no registers of %s are listed here", runtime.GOARCH)
	}
	none := uint8(usdt.NoReg)
	args := []usdt.Arg{
		{Mode: usdt.Reg, Size: 8, Reg: reg[0], Index: none},
		{Mode: usdt.Reg, Size: 1, Reg: reg[0], Index: none, Shift: 8},
		{Mode: usdt.Reg, Size: 4, Reg: reg[0], Index: none, Signed: true},
		{Mode: usdt.Mem, Size: 8, Reg: reg[1], Index: none, Disp: 8},
		{Mode: usdt.Mem, Size: 2, Reg: reg[1], Index: none, Signed: true},
		{Mode: usdt.Mem, Size: 8, Reg: reg[1], Index: reg[2], Scale: 3},
		{Mode: usdt.Mem, Size: 8, Reg: reg[1], Index: reg[0], Scale: 2, Extend: usdt.SignExtend, Disp: 24},
		{Mode: usdt.Mem, Size: 8, Reg: reg[1], Index: reg[2], Extend: usdt.ZeroExtend, Disp: 14},
		{Mode: usdt.Const, Size: 4, Reg: none, Index: none, Disp: -1 << 40},
		{Size: 8, Reg: none, Index: none},
	}
	words := &[4]uint64{0xfffe, 1111, 2222, 3333}
	const n = 0x8765432_fffffffe // its lower half is -2
	want := [usdt.MaxArgs]uint64{
		n, 0xff, ^uint64(1), 1111, ^uint64(1), 2222, 2222, 2222, ^uint64(1<<40) + 1, 0,
	}
	k, err := Load(Config{PIDs: []int{os.Getpid()}, OneByOne: oneByOne})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	other := Site{Name: "other", Args: args[:1]} // the right one must be chosen
	places := []Place{
		{Site: Site{Name: "hit", Args: args}, Offset: offset(t, hit)},
		{Site: other, Offset: offset(t, TestProgramsLoad)},
	}
	if err := k.Attach("/proc/self/exe", os.Getpid(), places); err != nil {
		t.Fatal(err)
	}
	hit(n, words, 2)
	if err := k.Wait(time.Now().Add(time.Minute)); err != nil { // a new thread wakes the reader
		t.Fatal(err)
	}
	var r Record
	if !k.Read(&r) || r.What != IsThread {
		t.Fatalf("the thread was not introduced: %+v", r)
	}
	if comm, uid := r.Thread(); comm != "bpf.test" || uid != os.Getuid() {
		t.Errorf("thread %q of user %d", comm, uid)
	}
	if !k.Read(&r) || r.What != IsEvent || r.Args != want || int(r.PID) != os.Getpid() {
		t.Errorf("got %x\nwant %x", r.Args, want)
	}
	if k.Read(&r) {
		t.Errorf("one more record: %+v", r)
	}
	if site, ok := k.Site(uint32(r.Site)); !ok || site.Name != "hit" {
		t.Errorf("site %+v", site)
	}
}

// offset returns where a function stands in this program's file.
func offset(t *testing.T, function any) uint64 {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	addr := uint64(reflect.ValueOf(function).Pointer())
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr < p.Vaddr+p.Filesz {
			return addr - p.Vaddr + p.Off
		}
	}
	t.Fatal("the function is nowhere in the file")
	return 0
}
