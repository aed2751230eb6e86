package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-project/postern"
)

// checkFile fails if a file has not this text and the mode 0600.
func checkFile(t *testing.T, path, text string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != text {
		t.Errorf("%s holds %q: %v", path, got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("%s: %v %v", path, info.Mode(), err)
	}
}

func TestAPrivateFileIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	f, err := CreatePrivate(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("secret"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "secret")
	if _, err := CreatePrivate(path); postern.CodeOf(err) != postern.Conflict || postern.HintOf(err) == "" {
		t.Errorf("a second time: %v", err)
	}
	checkFile(t, path, "secret")
	if _, err := CreatePrivate(filepath.Join(path, "below")); postern.CodeOf(err) != postern.Invalid {
		t.Errorf("below a file: %v", err)
	}
}

func TestAFileThatAllMayReadBecomesPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(path, []byte("something longer"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := OpenPrivate(path)
	if err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = OpenPrivate("/dev/null"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode().Perm() == 0o600 {
		t.Errorf("/dev/null has become private: %v", err)
	}
}
