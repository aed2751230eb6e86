package usdt

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

func reg(n uint8) Arg { return Arg{Mode: Reg, Size: 8, Reg: n, Index: NoReg} }

func mem(base uint8, disp int64) Arg {
	return Arg{Mode: Mem, Size: 8, Reg: base, Index: NoReg, Disp: disp}
}

func constant(n int64) Arg { return Arg{Mode: Const, Size: 8, Reg: NoReg, Index: NoReg, Disp: n} }

func sized(a Arg, size int) Arg {
	if a.Signed = size < 0; size < 0 {
		size = -size
	}
	a.Size = uint8(size)
	return a
}

func TestArgumentGrammar(t *testing.T) {
	unreadable := Arg{Size: 8, Reg: NoReg, Index: NoReg}
	indexed := mem(5, -8)
	indexed.Index, indexed.Scale = 10, 2
	noBase := indexed
	noBase.Reg, noBase.Disp = NoReg, 0x1000
	high := sized(reg(10), 1)
	high.Shift = 8
	symbol := mem(16, 8)
	symbol.Symbol = "counter"
	armIndexed, armSigned := mem(0, 0), mem(0, 0)
	armIndexed.Index, armIndexed.Scale = 1, 3
	armSigned.Index, armSigned.Scale, armSigned.Extend = 1, 2, SignExtend
	armZero := armSigned
	armZero.Scale, armZero.Extend = 0, ZeroExtend

	for _, c := range []struct {
		machine elf.Machine
		spec    string
		want    []Arg
	}{
		{elf.EM_X86_64, "", nil},
		{elf.EM_X86_64, "8@%rbx 8@128(%rbx) -4@$1 8@%r8", []Arg{reg(5), mem(5, 128), sized(constant(1), -4), reg(9)}},
		{elf.EM_X86_64, "8@(%rsp) 8@8(%rsp) 8@-88(%rbp)", []Arg{mem(19, 0), mem(19, 8), mem(4, -88)}},
		{elf.EM_X86_64, "4@%eax -2@%cx 1@%dl 1@%sil 4@%r10d 2@%r11w 1@%r12b", []Arg{
			sized(reg(10), 4), sized(reg(11), -2), sized(reg(12), 1), sized(reg(13), 1), sized(reg(7), 4),
			sized(reg(6), 2), sized(reg(3), 1),
		}},
		{elf.EM_X86_64, "1@%ah", []Arg{high}},
		{elf.EM_X86_64, "8@-8(%rbx,%rax,4) 8@0x1000(,%rax,4)", []Arg{indexed, noBase}},
		{
			elf.EM_X86_64, "-4@$-1 8@$0x10 8@$18446744073709551615",
			[]Arg{sized(constant(-1), -4), constant(16), constant(-1)},
		},
		{elf.EM_X86_64, "8@counter+8(%rip)", []Arg{symbol}},
		{
			elf.EM_X86_64, "8f@%xmm0 8@%xmm1 8@%fs:16(%rax) 8@counter(%rbx)",
			[]Arg{unreadable, unreadable, {Size: 8, Reg: 10, Index: NoReg}, {Size: 8, Reg: 5, Index: NoReg}},
		},
		{elf.EM_X86_64, "%rax $3", []Arg{reg(10), constant(3)}},
		{elf.EM_AARCH64, "8@x0 -4@[sp, 12] 4@[x19]", []Arg{reg(0), sized(mem(31, 12), -4), sized(mem(19, 0), 4)}},
		{
			elf.EM_AARCH64, "4@w1 8@sp 8@x30 8@7 -4@-1 8@#3",
			[]Arg{sized(reg(1), 4), reg(31), reg(30), constant(7), sized(constant(-1), -4), constant(3)},
		},
		{elf.EM_AARCH64, "8@[x0, x1, lsl 3] 8@[x0, w1, sxtw #2] 8@[x0,w1]", []Arg{armIndexed, armSigned, armZero}},
		{
			elf.EM_AARCH64, "8@[x29, -16] 8@d0 8@[x1, #:lo12:symbol]",
			[]Arg{mem(29, -16), unreadable, {Size: 8, Reg: 1, Index: NoReg}},
		},
	} {
		got, err := ParseArgs(c.spec, c.machine)
		if err != nil {
			t.Errorf("%v %q: %v", c.machine, c.spec, err)
			continue
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v %q:\n got %+v\nwant %+v", c.machine, c.spec, got, c.want)
		}
	}
}

func TestOtherArgumentsAreRefused(t *testing.T) {
	for _, c := range []struct {
		machine elf.Machine
		spec    string
	}{
		{elf.EM_X86_64, "3@%rax"},
		{elf.EM_X86_64, "x@%rax"},
		{elf.EM_X86_64, "8@%foo"},
		{elf.EM_X86_64, "8@8(%rbx"},
		{elf.EM_X86_64, "8@8(%rbx,%rax,3)"},
		{elf.EM_X86_64, "8@8(%rbx,%rax,2,2)"},
		{elf.EM_X86_64, "8@$x"},
		{elf.EM_X86_64, "8@"},
		{elf.EM_AARCH64, "8@x31"},
		{elf.EM_AARCH64, "8@[w0]"},
		{elf.EM_AARCH64, "8@[x0, x1, ror 3]"},
		{elf.EM_AARCH64, "8@[x0, 8"},
		{elf.EM_AARCH64, "8@%rax"},
		{elf.EM_RISCV, "8@a0"},
	} {
		if got, err := ParseArgs(c.spec, c.machine); err == nil {
			t.Errorf("%v %q gives %+v", c.machine, c.spec, got)
		}
	}
}

// realNotes returns the notes of Debian 12's libvirt 9.0.0, for both machines.
func realNotes(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.notes")
	if err != nil || len(files) != 6 {
		t.Fatalf("%d files of notes: %v", len(files), err)
	}
	out := map[string][]byte{}
	for _, f := range files {
		if out[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func machineOf(file string) elf.Machine {
	if strings.HasSuffix(file, ".arm64.notes") {
		return elf.EM_AARCH64
	}
	return elf.EM_X86_64
}

func TestEveryArgumentOfDebiansFilesIsRead(t *testing.T) {
	counts := map[string]int{}
	for file, data := range realNotes(t) {
		notes, err := parseNotes(data, binary.LittleEndian)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		counts[file] = len(notes)
		for _, n := range notes {
			args, err := ParseArgs(n.args, machineOf(file))
			if err != nil {
				t.Errorf("%s: %s: %v", file, n.name, err)
			}
			if len(args) != strings.Count(n.args, "@") {
				t.Errorf("%s: %s: %d arguments of %q", file, n.name, len(args), n.args)
			}
			for i, a := range args {
				if a.Mode == None {
					t.Errorf("%s: %s: argument %d of %q cannot be read", file, n.name, i, n.args)
				}
			}
			if n.semaphore == 0 || n.provider != "libvirt" {
				t.Errorf("%s: %s: semaphore 0x%x, provider %q", file, n.name, n.semaphore, n.provider)
			}
		}
	}
	want := map[string]int{
		"libvirt.so.0.amd64.notes": 41, "libvirtd.amd64.notes": 9, "libvirt_driver_qemu.so.amd64.notes": 8,
		"libvirt.so.0.arm64.notes": 41, "libvirtd.arm64.notes": 9, "libvirt_driver_qemu.so.arm64.notes": 8,
	}
	if !reflect.DeepEqual(counts, want) {
		t.Errorf("probes: %v, want %v", counts, want)
	}
}

// TestAgreesWithReadelf holds the parser against readelf on the installed files.
func TestAgreesWithReadelf(t *testing.T) {
	readelf := posterntest.Need(t, "readelf")
	libs, _ := filepath.Glob("/usr/lib/*/libvirt.so.0")
	libs = append(libs, posterntest.Need(t, "libvirtd"))
	drivers, _ := filepath.Glob("/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so")
	for _, lib := range append(libs, drivers...) {
		file, err := os.Open(lib)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		f, err := Open(file)
		if err != nil {
			t.Fatalf("%s: %v", lib, err)
		}
		out, err := exec.Command(readelf, "-nW", lib).Output()
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`(?m)^\s+Name: (\S+)$`).FindAllSubmatch(out, -1)
		args := regexp.MustCompile(`(?m)^\s+Arguments: (.*)$`).FindAllSubmatch(out, -1)
		id := regexp.MustCompile(`Build ID: (\w+)`).FindSubmatch(out)
		if len(id) != 2 || string(id[1]) != f.BuildID {
			t.Errorf("%s: build %s, readelf says %s", lib, f.BuildID, id)
		}
		if len(names) != len(f.Probes) || len(args) != len(names) {
			t.Fatalf("%s: %d probes, readelf finds %d", lib, len(f.Probes), len(names))
		}
		for i, p := range f.Probes {
			if p.Name != string(names[i][1]) || p.Spec != string(bytes.TrimSpace(args[i][1])) {
				t.Errorf("%s: probe %d: %s %q, readelf says %s %q", lib, i, p.Name, p.Spec, names[i][1], args[i][1])
			}
			// Every probe is a no-op in the code.
			b := make([]byte, 1)
			if _, err := file.ReadAt(b, int64(p.Offset)); err != nil || f.Machine == elf.EM_X86_64 && b[0] != 0x90 {
				t.Errorf("%s: %s: instruction 0x%x at 0x%x: %v", lib, p.Name, b, p.Offset, err)
			}
			if start, ok := f.Function(p.Addr); ok && start > p.Addr {
				t.Errorf("%s: %s at 0x%x lies in a function that starts at 0x%x", lib, p.Name, p.Addr, start)
			}
		}
	}
}

func TestFunctionOfADispatchIsFound(t *testing.T) {
	libs, _ := filepath.Glob("/usr/lib/*/libvirt.so.0")
	if len(libs) == 0 {
		posterntest.Missing(t, "needs libvirt.so.0")
	}
	file, err := os.Open(libs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range f.Probes {
		if !strings.HasPrefix(p.Name, "event_glib_dispatch") {
			continue
		}
		n++
		start, ok := f.Function(p.Addr)
		if !ok || p.Addr-start > 4096 {
			t.Errorf("%s at 0x%x: function at 0x%x, %v", p.Name, p.Addr, start, ok)
		}
	}
	if n == 0 {
		t.Error("no dispatch probes")
	}
}

func TestNotesThatLie(t *testing.T) {
	good := realNotes(t)["libvirtd.amd64.notes"]
	for name, data := range map[string][]byte{
		"name past the end":   append([]byte{0xff, 0xff, 0xff, 0xff}, good[4:]...),
		"desc past the end":   append(append(bytes.Clone(good[:4]), 0xff, 0xff, 0xff, 0x7f), good[8:]...),
		"no space for places": {8, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 's', 't', 'a', 'p', 's', 'd', 't', 0, 1, 2, 3, 4},
	} {
		if notes, err := parseNotes(data, binary.LittleEndian); err == nil {
			t.Errorf("%s: %d notes", name, len(notes))
		}
	}
}

func TestMapsAreRead(t *testing.T) {
	maps := parseMaps(
		[]byte(`55d0c8a00000-55d0c8a2e000 r--p 00000000 fe:00 131074                     /usr/sbin/libvirtd
55d0c8a2e000-55d0c8a70000 r-xp 0002e000 fe:00 131074                     /usr/sbin/libvirtd
7f1f80000000-7f1f80021000 rw-p 00000000 00:00 0
7f1f90000000-7f1f90100000 r-xp 00000000 fe:00 262200                     /usr/lib/a b/libvirt.so.0 (deleted)
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
junk
`))
	want := []Mapping{
		{Path: "/usr/sbin/libvirtd", Dev: "fe:00", Inode: 131074, Start: 0x55d0c8a00000, End: 0x55d0c8a2e000},
		{
			Path: "/usr/lib/a b/libvirt.so.0", Deleted: true, Dev: "fe:00", Inode: 262200, Start: 0x7f1f90000000,
			End: 0x7f1f90100000,
		},
	}
	if !reflect.DeepEqual(maps, want) {
		t.Errorf("got %+v", maps)
	}
}

func FuzzNotes(f *testing.F) {
	for _, data := range realNotes(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		notes, err := parseNotes(data, binary.LittleEndian)
		if err != nil {
			return
		}
		size := 0
		for _, n := range notes {
			size += len(n.provider) + len(n.name) + len(n.args) + 24
		}
		if size > len(data) {
			t.Errorf("%d bytes of notes out of %d", size, len(data))
		}
	})
}

func FuzzArgs(f *testing.F) {
	for file, data := range realNotes(f) {
		notes, err := parseNotes(data, binary.LittleEndian)
		if err != nil {
			f.Fatal(err)
		}
		for _, n := range notes {
			f.Add(n.args, machineOf(file) == elf.EM_AARCH64)
		}
	}
	for _, s := range []string{
		"-8@8(%rbx,%rax,4)", "8@sym+4(%rip)", "1@%ah", "8f@%xmm0", "4@[x0, w1, sxtw 2]",
		"8@[sp, -16]",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, spec string, arm bool) {
		machine, last := elf.EM_X86_64, uint8(20)
		if arm {
			machine, last = elf.EM_AARCH64, 32
		}
		args, err := ParseArgs(spec, machine)
		if err != nil {
			return
		}
		if len(args) > MaxArgs {
			t.Fatalf("%d arguments", len(args))
		}
		for _, a := range args {
			if a.Mode == Reg && a.Reg > last || a.Reg > last && a.Reg != NoReg || a.Index > last && a.Index != NoReg ||
				a.Scale > 4 {
				t.Errorf("%q: %+v", spec, a)
			}
			if a.Size != 1 && a.Size != 2 && a.Size != 4 && a.Size != 8 {
				t.Errorf("%q: size %d", spec, a.Size)
			}
		}
	})
}

func FuzzELF(f *testing.F) {
	for file, data := range realNotes(f) {
		f.Add(builtELF(machineOf(file), data, 0))
	}
	f.Add(builtELF(elf.EM_X86_64, builtNote(0x1234, 0x1800, 0x5010, "libvirt\x00probe\x008@8(%rbx)\x00"), 0x1900))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		file, err := Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		for _, p := range file.Probes {
			file.Function(p.Addr)
		}
		file.Symbol("main")
	})
}
