// Package posterntest runs Postern's tests against real peers: it finds their
// programs, starts them on loopback and stops what it started. One file a peer.
package posterntest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// CheckEnv is set to 1 by make check: there a missing peer fails the test,
// where plain go test skips it.
const CheckEnv = "POSTERN_CHECK"

// Need returns the path of a program that the test cannot do without, looked up
// on PATH and in the system directories. Without it the test is skipped, or
// fails under make check.
func Need(t testing.TB, program string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/postgresql/*/bin"} {
		found, _ := filepath.Glob(filepath.Join(dir, program))
		if len(found) > 0 {
			return found[len(found)-1]
		}
	}
	Missing(t, "needs the program %s", program)
	return ""
}

// NeedRoot skips the test, or fails it under make check, unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Missing skips the test for want of something, or fails it under make check.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(CheckEnv) == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Soak skips the test unless it runs under make soak.
func Soak(t testing.TB) {
	t.Helper()
	if os.Getenv("POSTERN_SOAK") != "1" {
		t.Skip("a long test: run by make soak")
	}
}

// startDir is where the test began: go test runs each in its package's directory.
var startDir, _ = os.Getwd()

// ModuleDir returns the directory of this module's go.mod, at or above the
// directory that the test began in.
func ModuleDir(t testing.TB) string {
	t.Helper()
	for dir := startDir; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod at or above %q", startDir)
		}
	}
}
