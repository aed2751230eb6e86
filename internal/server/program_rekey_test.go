package server_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestRekeyWhileServing changes the key under a running server, which then
// makes secrets that only the new key opens.
func TestRekeyWhileServing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	r := startRun(t, dir)
	old, err := os.ReadFile(filepath.Join(dir, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	r.mustPostern("rekey")
	if fresh, err := os.ReadFile(filepath.Join(dir, "kek")); err != nil || bytes.Equal(fresh, old) {
		t.Fatal("the key is the same", err)
	}
	for _, left := range []string{"kek.next", "kek.taken"} {
		if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
	r.mustPostern("ca", "issue", "--server", "www.example.com", "--out", t.TempDir())
	r.stop()
	r.start()
	r.mustPostern("log", "verify")
}
