package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// StartAgain starts this program with other arguments, as a process that outlives this
// one and, on Linux, its terminal. Nothing waits for it.
func StartAgain(args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = filepath.Base(os.Args[0])
	cmd.Dir = "/"
	detach(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the program again: %w", err)
	}
	return cmd.Process.Release()
}
