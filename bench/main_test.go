package bench

import (
	"errors"
	"log"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestMain keeps what the benchmarks write in one directory, which another
// process removes when this one ends, also if a signal ends it. It also lets the test
// binary be the signing server.
func TestMain(m *testing.M) {
	if dir := os.Getenv(signerEnv); dir != "" {
		log.Fatal(serveSigner(dir, os.Getenv(signerEnv+"_ADDR")))
	}
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		log.Fatal(err)
	}
	cleaner := exec.Command("sh", "-c", `cat; sleep 1; rm -rf "$1"`, "sh", dir)
	cleaner.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ends, err := cleaner.StdinPipe()
	err = errors.Join(err, cleaner.Start(),
		os.Chmod(dir, 0o755), // other users' sshd and PAM look into it
		os.Setenv("TMPDIR", dir))
	if err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	ends.Close()
	_ = cleaner.Wait()
	os.Exit(code)
}
