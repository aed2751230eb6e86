//go:build !linux

package agent

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/postern-project/postern/internal/system"
)

func (s Server) separate(context.Context, string, *slog.Logger) (*Target, func(), error) {
	return nil, nil, system.NeedsLinux("an agent of two processes")
}

// Network fails: it needs Linux.
func Network(context.Context, io.Reader, *os.File, *slog.Logger) error {
	return system.NeedsLinux("an agent of two processes")
}
