package posterntest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// ProgramEnv is the environment variable with the postern command that make has built,
// for the tests of all packages.
const ProgramEnv = "POSTERN_PROGRAM"

// program is where the postern command of this module is, "" before.
var program struct {
	sync.Mutex
	path string
}

// Program returns a copy of the postern command that make has built, or builds it,
// once for all tests of a package, whose TestMain calls [Run]. Every user may run it.
func Program(t testing.TB) string {
	t.Helper()
	program.Lock()
	defer program.Unlock()
	if program.path == "" {
		path, err := build(ModuleDir(t))
		if err != nil {
			t.Fatal(err)
		}
		program.path = path
	}
	return program.path
}

func build(module string) (string, error) {
	dir, err := os.MkdirTemp("", "postern-program-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "postern")
	cmd := exec.Command("go", "build", "-ldflags=-w", "-o", path, "./cmd/postern") // no debugger reads it
	if built := os.Getenv(ProgramEnv); built != "" {
		cmd = exec.Command("cp", built, path)
	}
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build postern: %w: %s", err, out)
	}
	return path, os.Chmod(dir, 0o755)
}

// Run runs the tests of a package, removes what [Program] built, and returns the
// exit code.
func Run(m *testing.M) int {
	defer func() {
		if program.path != "" {
			os.RemoveAll(filepath.Dir(program.path))
		}
	}()
	return m.Run()
}

// Install puts the postern command into the host's directory and returns its path
// there.
func (h *Host) Install(t testing.TB) string {
	t.Helper()
	path := filepath.Join(h.Dir, "postern")
	if os.Link(Program(t), path) == nil {
		return path
	}
	b, err := os.ReadFile(Program(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Read returns the text of a file.
func Read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
