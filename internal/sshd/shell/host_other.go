//go:build !linux

package shell

import (
	"context"
	"os"

	"github.com/postern-project/postern/internal/system"
)

func (s Shell) ask(ctx context.Context) (string, error) { return readLine(ctx, s.Stdin) }

// readLine fails: it needs Linux.
func readLine(context.Context, *os.File) (string, error) {
	return "", system.NeedsLinux("asking for a code in place of a shell")
}

// LogAuth does nothing: there is no syslog.
func LogAuth(bool, string) {}
