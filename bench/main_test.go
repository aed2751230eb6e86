package bench

import (
	"log"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain keeps what the benchmarks write in one directory, and removes it also
// when a signal ends them, as when somebody has seen enough.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // other users' sshd and PAM look into it
	}
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-ended
		os.RemoveAll(dir)
		os.Exit(1)
	}()
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}
