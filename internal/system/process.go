package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/postern-project/postern"
)

// HostName returns what this host is called: the name that is given, or its own.
func HostName(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", postern.Errorf(postern.Internal, "the name of this host: %w", err).WithHint("name this host")
	}
	return name, nil
}

// EndGroup has a command that is ended take along the processes that it has started, on
// Linux.
func EndGroup(cmd *exec.Cmd) { endGroup(cmd) }

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
