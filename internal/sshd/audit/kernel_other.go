//go:build !linux

package audit

import (
	"os"

	"github.com/postern-project/postern/internal/system"
)

// kernelClock knows nothing of the clock.
func kernelClock() Clock { return Clock{} }

// memoryFile fails: it needs Linux.
func memoryFile(string) (*os.File, error) { return nil, system.NeedsLinux("a file in memory") }
