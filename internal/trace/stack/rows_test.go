package stack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern/internal/posterntest"
)

// TestEveryFunctionHasARow works out the row at the beginning, in the middle and
// at the end of every function of real files: none may be beyond us.
func TestEveryFunctionHasARow(t *testing.T) {
	files := []string{posterntest.Need(t, "virsh"), posterntest.Need(t, "libvirtd")}
	for _, pattern := range []string{
		"/usr/lib/*-linux-gnu/libvirt.so.0", "/usr/lib/*-linux-gnu/libglib-2.0.so.0",
		"/usr/lib/*-linux-gnu/libc.so.6", "/usr/lib/*-linux-gnu/ld-linux*.so.*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		m, err := newModule(file, f)
		if err != nil {
			t.Fatal(err)
		}
		functions, bad := len(m.index)/8, 0
		for i := range functions {
			begin := m.base + uint64(int64(int32(m.elf.ByteOrder.Uint32(m.index[8*i:]))))
			r, err := m.row(begin)
			if err == nil && r.end > r.begin {
				for _, pc := range []uint64{(r.begin + r.end) / 2, r.end - 1} {
					if _, e := m.row(pc); e != nil {
						err = e
					}
				}
			}
			if err != nil {
				if bad++; bad < 5 {
					t.Errorf("%s at %#x: %v", file, begin, err)
				}
			}
		}
		t.Logf("%s: %d functions, %d without", file, functions, bad)
		f.Close()
	}
}
