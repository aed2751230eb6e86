package posterntest

import (
	"os"
	"os/exec"
	"testing"
)

// Mounted mounts something on a directory until the test ends, as mount(8) with these
// arguments does. It needs root.
func Mounted(t testing.TB, args ...string) string {
	t.Helper()
	NeedRoot(t)
	dir := t.TempDir()
	if out, err := exec.Command(Need(t, "mount"), append(args, dir)...).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(Need(t, "umount"), dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// Fill appends to a file until its disk is full.
func Fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 16, 1 << 12, 1} {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
	}
}
