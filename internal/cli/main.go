// Package cli is the command line: each command is its flags, one call into
// another package, and printing. It is the one package that prints, exits or
// reads the environment.
package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Main runs the command line of this process and returns its exit code. An
// interrupt or SIGTERM ends what the command does.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
