package stack

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/postern-project/postern/internal/posterntest"
	"github.com/postern-project/postern/internal/trace/event"
)

// still is the unwinder with the recorded program's file at hand.
func still(t testing.TB) (*Unwinder, []dump) {
	t.Helper()
	u, err := with("testdata/still")
	if err != nil {
		t.Fatal(err)
	}
	dumps := readDumps(t, "testdata/still.json")
	for i := range dumps {
		u.pretend(dumps[i].PID, dumps[i].Maps)
	}
	return u, dumps
}

// with returns an unwinder for recorded stacks of amd64, which takes the file for
// that of whatever is mapped from /usr/bin/still.
func with(file string) (*Unwinder, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := newModule(file, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	u := New(Config{})
	u.arch = &amd64
	for line := range strings.Lines(stillMaps()) {
		if mp, ok := parseMapping([]byte(strings.TrimSuffix(line, "\n"))); ok && mp.path == "/usr/bin/still" {
			u.modules[identity{dev: mp.dev, inode: mp.inode}] = m
		}
	}
	return u, nil
}

func stillMaps() string {
	b, err := os.ReadFile("testdata/still.json")
	if err != nil {
		return ""
	}
	_, maps, _ := bytes.Cut(b, []byte(`"maps": "`))
	maps, _, _ = bytes.Cut(maps, []byte(`"`))
	return strings.ReplaceAll(string(maps), `\n`, "\n")
}

// TestRecordedStacks unwinds stacks that were recorded once, of a process that
// has long exited, through frames of variable size and a signal handler's, and
// finds the names that are packed in the stripped file.
func TestRecordedStacks(t *testing.T) {
	u, dumps := still(t)
	if len(dumps) < 5 {
		t.Fatalf("%d stacks are recorded", len(dumps))
	}
	for i := range dumps {
		d := &dumps[i]
		regs, stack := d.bytes(t)
		got, err := u.Frames(d.PID, regs, stack, event.Return{})
		if reason := differs(d, got); reason != "" || err != nil {
			t.Errorf("stack %d: %v %s\n%s", i, err, reason, sideBySide(d, got))
			continue
		}
		for j, f := range got {
			if f.Symbol != d.Frames[j].Name || f.Offset >= f.Size || f.Module != "/usr/bin/still" ||
				f.ModuleOffset != f.PC-0x400000 {
				t.Errorf("stack %d, frame %d: %+v, gdb says %s", i, j, f, d.Frames[j].Name)
			}
		}
	}
}

// TestIncompleteStacks: what is missing is said, and what was found is kept.
func TestIncompleteStacks(t *testing.T) {
	u, dumps := still(t)
	d := &dumps[3]
	regs, stack := d.bytes(t)
	whole, _ := u.Frames(d.PID, regs, stack, event.Return{})
	frames := len(whole)
	for n := 0; n < 400; n += 8 {
		got, err := u.Frames(d.PID, regs, stack[:n], event.Return{})
		if len(got) < 1 || len(got) > frames || err == nil != (len(got) == frames) {
			t.Errorf("of %d bytes come %d frames: %v", n, len(got), err)
		}
	}
	if got, err := u.Frames(d.PID, regs[:100], stack, event.Return{}); got != nil || err == nil {
		t.Errorf("without registers there are %d frames", len(got))
	}
	u.c.Frames = 2
	if got, err := u.Frames(d.PID, regs, stack, event.Return{}); len(got) != 2 || err == nil {
		t.Errorf("%d frames where 2 are allowed: %v", len(got), err)
	}
	gone := New(Config{})
	gone.arch = &amd64
	if got, err := gone.Frames(1<<22+1, regs, stack, event.Return{}); len(got) != 1 || got[0].PC == 0 || err == nil {
		t.Errorf("of an unknown process come %d frames: %v", len(got), err)
	}
}

// TestThisProcess unwinds nothing, but reads the maps, files and names of a real
// process, and keeps to its bounds.
func TestThisProcess(t *testing.T) {
	u := New(Config{Modules: 2, Processes: 1})
	defer u.Close()
	for range 2 {
		if err := u.Watch(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	if len(u.modules) > 2 || len(u.procs) != 1 {
		t.Errorf("%d files, %d processes", len(u.modules), len(u.procs))
	}
	if err := u.Watch(os.Getppid()); err != nil {
		t.Fatal(err)
	}
	if len(u.procs) != 1 {
		t.Errorf("%d processes", len(u.procs))
	}
	if err := u.Watch(1<<22 + 1); err == nil {
		t.Error("a process that does not exist is watched")
	}
}

// TestMemoryIsBounded: what is kept of files stays within bounds, and stacks are
// unwound all the same.
func TestMemoryIsBounded(t *testing.T) {
	u, dumps := still(t)
	u.c.Memory = 64 << 10
	regs, stack := dumps[0].bytes(t)
	for range 3 {
		if _, err := u.Frames(dumps[0].PID, regs, stack, event.Return{}); err != nil {
			t.Fatal(err)
		}
		if err := u.Watch(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		total := 0
		for _, m := range u.modules {
			total += m.size()
		}
		if total > u.c.Memory && len(u.modules) > 1 {
			t.Errorf("%d bytes are kept of %d files", total, len(u.modules))
		}
		again, err := with("testdata/still")
		if err != nil {
			t.Fatal(err)
		}
		for id, m := range again.modules {
			u.modules[id] = m
		}
	}
}

// TestDebugFile finds the names of a stripped program in the file that Debian's
// -dbgsym packages would bring, by its build-id.
func TestDebugFile(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "corners")
	command := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(posterntest.Need(t, name), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	command("cc", "-O0", "-Wl,--build-id", "-o", program, "testdata/corners.c", "-lpthread")
	command("objcopy", "--only-keep-debug", program, program+".debug")
	command("strip", program)
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := newModule(program, f)
	if err != nil {
		t.Fatal(err)
	}
	m.file = f
	id := hex.EncodeToString(buildID(m.elf))
	place := filepath.Join(dir, "debug", ".build-id", id[:2], id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		t.Fatal(err)
	}
	has := func(name string) bool {
		s := readSymbols(os.Getpid(), m, []string{filepath.Join(dir, "debug")})
		return slices.ContainsFunc(s.list, func(y symbol) bool { return s.name(&y) == name })
	}
	if has("variable") {
		t.Error("a stripped program has names")
	}
	if err := os.Rename(program+".debug", place); err != nil {
		t.Fatal(err)
	}
	if !has("variable") {
		t.Error("the debug file is not found")
	}
	command("cc", "-O1", "-Wl,--build-id", "-o", place, "testdata/corners.c", "-lpthread")
	if has("variable") {
		t.Error("the debug file of another build is used")
	}
}

func TestMaps(t *testing.T) {
	maps := parseMaps([]byte(`7f0000001000-7f0000002000 r-xp 00001000 08:01 42                         /usr/lib/a b.so
7f0000000000-7f0000001000 r--p 00000000 08:01 42                         /usr/lib/a b.so
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
7f0000003000-7f0000004000 r--p 00000000 08:01 42                         /usr/lib/a b.so
7fff00000000-7fff00002000 r-xp 00000000 00:00 0                          [vdso]
7ffe00000000-7ffe00002000 rw-p 00000000 00:00 0                          [stack]
nonsense
2-1 r-xp 00000000 08:01 42 /x
zz-2 r-xp 00000000 08:01 42 /x
`))
	if len(maps) != 4 {
		t.Fatalf("%d mappings: %+v", len(maps), maps)
	}
	m := find(maps, 0x7f0000001fff)
	if m == nil || m.path != "/usr/lib/a b.so" || !m.exec || m.offset != 0x1000 || m.base != 0x7f0000000000 ||
		m.size != 0x2000 {
		t.Errorf("got %+v", m)
	}
	if m := find(maps, 0x7f0000003000); m == nil || m.base != 0x7f0000003000 {
		t.Errorf("a second mapping of the file has base %+v", m)
	}
	for _, addr := range []uint64{0, 0x7f0000002000, 0x7f0000004000, 1<<64 - 1} {
		if m := find(maps, addr); m != nil {
			t.Errorf("%#x is in %+v", addr, m)
		}
	}
}

func TestUnpack(t *testing.T) {
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("postern"), 100_000)
	if _, err := w.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := unpack(packed.Bytes())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d: %v", len(got), len(want), err)
	}
	huge := bytes.Clone(packed.Bytes())
	for i := 12; i < 24; i++ {
		if huge[i] == 0x21 && huge[i+1] == 1 {
			huge[i+2] = 40 // a dictionary of 4 GiB
			break
		}
	}
	if _, err := unpack(huge); err == nil {
		t.Error("a dictionary of 4 GiB is made")
	}
}

func FuzzFrames(f *testing.F) {
	u, dumps := still(f)
	for i := range dumps {
		regs, stack := dumps[i].bytes(f)
		f.Add(regs, stack[:min(len(stack), 1024)])
	}
	f.Fuzz(func(t *testing.T, regs, stack []byte) {
		frames, err := u.Frames(dumps[0].PID, regs, stack, event.Return{})
		if len(frames) > 128 || err == nil && len(frames) == 0 {
			t.Fatalf("%d frames: %v", len(frames), err)
		}
	})
}

func FuzzModule(f *testing.F) {
	b, err := os.ReadFile("testdata/still")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint64(0x400200))
	f.Add(b, uint64(0x400230))
	f.Fuzz(func(t *testing.T, b []byte, pc uint64) {
		m, err := newModule("fuzz", bytes.NewReader(b))
		if err != nil {
			return
		}
		s := readSymbols(0, m, nil)
		if y := s.find(pc); y != nil {
			s.name(y)
		}
		var regs registers
		for n := range uint64(17) {
			regs.set(n, 0x1000)
		}
		mem := &memory{base: 0xfc0, bytes: make([]byte, 128)}
		for i := range uint64(64) {
			if r, err := m.row(pc + i); err == nil {
				_, _ = amd64.step(r, &regs, mem)
			}
		}
	})
}

func FuzzMaps(f *testing.F) {
	f.Add([]byte(stillMaps()))
	f.Add(
		[]byte("7f0000001000-7f0000002000 r-xp 00001000 08:01 42                         /usr/lib/a b.so (deleted)\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMaps(b) {
			if m.end <= m.start || m.base > m.start {
				t.Fatalf("%+v", m)
			}
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	u, dumps := still(b)
	regs, stack := dumps[3].bytes(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Frames(dumps[3].PID, regs, stack, event.Return{}); err != nil {
			b.Fatal(err)
		}
	}
}
