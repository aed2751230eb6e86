package stack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// lined is a program of two files, in which lines of a header are inlined.
var lined = map[string]string{
	"in/part.h": "static inline int twice(int n)\n{\n\tif (n > 7)\n\t\treturn n * 2;\n\treturn n + n + 1;\n}\n",
	"other.c": "#include \"part.h\"\nint other(int n)\n{\n\tfor (int i = 0; i < n; i++)\n\t\tn -= twice(i);\n" +
		"\treturn n;\n}\n",
	"main.c": "#include \"part.h\"\nint other(int n);\nstatic int hidden(int n)\n{\n\treturn twice(n) * other(n);\n" +
		"}\n\n" +
		"int main(int argc, char **argv)\n{\n\treturn hidden(argc);\n}\n",
}

// compile compiles that program and returns its path.
func compile(t testing.TB, compiler string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range lined {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := filepath.Join(dir, "p")
	args := slices.Concat(flags, []string{"-Wl,--build-id", "-I", filepath.Join(dir, "in"), "-o", p})
	args = append(args, filepath.Join(dir, "main.c"), filepath.Join(dir, "other.c"))
	if out, err := exec.Command(posterntest.Need(t, compiler), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", compiler, err, out)
	}
	return p
}

func openELF(t testing.TB, path string) *elf.File {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestLinesAsAddr2line compares the lines of all code of programs, by each version of the
// format and by two compilers, with those that other programs find.
func TestLinesAsAddr2line(t *testing.T) {
	for _, c := range [][]string{
		{"addr2line", "gcc", "-gdwarf-2", "-O0"},
		{"addr2line", "gcc", "-gdwarf-4", "-O2", "-ffunction-sections"},
		{"addr2line", "gcc", "-gdwarf-5", "-O2", "-gz"},
		{"addr2line", "clang", "-gdwarf-5", "-O1"},
		{"addr2line", "clang", "-gdwarf-3", "-O0"},
		{"llvm-addr2line", "gcc", "-gdwarf64", "-gdwarf-5", "-O0"},
	} {
		path := compile(t, c[1], c[2:]...)
		f := openELF(t, path)
		l := readLines(f)
		if l == nil {
			t.Errorf("%v: no lines", c)
			continue
		}
		text := f.Section(".text")
		var addrs []uint64
		var asked strings.Builder
		for addr := text.Addr; addr < text.Addr+text.Size; addr++ {
			addrs = append(addrs, addr)
			fmt.Fprintf(&asked, "%#x\n", addr)
		}
		peer := exec.Command(posterntest.Need(t, c[0]), "-e", path)
		peer.Stdin = strings.NewReader(asked.String())
		out, err := peer.Output()
		if err != nil {
			t.Fatal(err)
		}
		known := 0
		for i, want := range strings.Split(strings.TrimSpace(string(out)), "\n") {
			want, _, _ = strings.Cut(want, " (discriminator")
			file, line := l.find(addrs[i])
			got := fmt.Sprintf("%s:%d", file, line)
			if line > 0 {
				known++
			}
			unknown := strings.HasSuffix(want, ":?") || want == "??:0"
			if unknown != (line == 0) || !unknown && want != got {
				t.Errorf("%v: %#x is at %s, the peer says %s", c, addrs[i], got, want)
			}
		}
		if known < 50 {
			t.Errorf("%v: the lines of %d bytes are known", c, known)
		}
	}
}

// TestNoLines asks for lines where there are none.
func TestNoLines(t *testing.T) {
	path := compile(t, "gcc", "-g", "-O0")
	l := readLines(openELF(t, path))
	first, last := l.sequences[0], l.sequences[len(l.sequences)-1]
	for _, addr := range []uint64{0, first.low - 1, last.high, ^uint64(0)} {
		if file, line := l.find(addr); file != "" || line != 0 {
			t.Errorf("%#x is at %s:%d", addr, file, line)
		}
	}
	if out, err := exec.Command("strip", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if l := readLines(openELF(t, path)); l != nil || l.size() != 0 {
		t.Error("a stripped program has lines")
	}
}

// TestLongNamesAreReadOnce: a table of which each entry has a name of megabytes is as quickly
// read as another, which a program could have an administrator's trace wait for.
func TestLongNamesAreReadOnce(t *testing.T) {
	const entries = 1 << 22
	names := append([]byte{1, contentPath, formLineStrp}, binary.AppendUvarint(nil, entries)...)
	p := lineProgram{version: 5, names: reader{
		b:     append(names, make([]byte, 8*entries)...),
		order: binary.LittleEndian,
	}}
	if name := p.fileName(entries-1, bytes.Repeat([]byte("x"), 1<<24)); name != "" {
		t.Errorf("a name of %d bytes", len(name))
	}
}

// FuzzLines: whatever the programs are, they are read within bounds.
func FuzzLines(f *testing.F) {
	for _, version := range []string{"-gdwarf-2", "-gdwarf-4", "-gdwarf-5"} {
		e := openELF(f, compile(f, "gcc", version))
		f.Add(debugSection(e, ".debug_line"), debugSection(e, ".debug_line_str"))
	}
	// A table with 2^63 directories of no bytes, and with as many names of one byte.
	f.Add(endless(0), []byte("x\x00"))
	f.Add(endless(1), []byte("x\x00"))
	f.Fuzz(func(t *testing.T, programs, names []byte) {
		l := &lines{programs: programs, names: names, order: binary.LittleEndian}
		l.index()
		if len(l.sequences) > len(programs) {
			t.Fatalf("%d sequences of %d bytes", len(l.sequences), len(programs))
		}
		for i, s := range l.sequences {
			if i > 8 {
				break
			}
			for _, addr := range []uint64{s.low, s.high - 1} {
				if file, line := l.find(addr); len(file) > 3*maxPath || line < 0 {
					t.Fatalf("%d bytes of name, line %d", len(file), line)
				}
			}
		}
	})
}

// endless returns a program with a table of directories that never ends, each of so many
// contents.
func endless(contents int) []byte {
	names := []byte{byte(contents)}
	for range contents {
		names = append(names, contentPath, formString)
	}
	names = append(names, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
	head := append([]byte{1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1}, names...)
	code := []byte{0, 9, opSetAddress, 0, 16, 0, 0, 0, 0, 0, 0, opCopy, opAdvancePC, 4, 0, 1, opEndSequence}
	b := binary.LittleEndian.AppendUint16(nil, 5)
	b = append(b, 8, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = append(append(b, head...), code...)
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
}
