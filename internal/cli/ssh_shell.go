package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/login"
	"github.com/postern-project/postern/internal/sshd/shell"
	"github.com/postern-project/postern/internal/system"
	"github.com/spf13/cobra"
)

func newSSHShell(a *app) *cobra.Command {
	shell := login.Shell{Stdin: os.Stdin, Stdout: a.out, Stderr: a.err}
	cmd := plain("shell", "Ask for a code, then become the user's shell: a ForceCommand",
		func(ctx context.Context, _ []string) error { return a.sshShell(ctx, shell) })
	f := cmd.Flags()
	f.StringVar(&shell.Config, "config", "/etc/yubikey_shell", "the `FILE` of settings")
	f.StringSliceVar(&shell.Accepted, "accept", nil,
		"start although this `CHANNEL` is open, named as postern ssh check names it")
	f.DurationVar(&shell.Timeout, "timeout", time.Minute, "the `DURATION` that typing the code may take")
	return cmd
}

// lastWord is how long sshd has to pass on why, before the connection ends.
const lastWord = 200 * time.Millisecond

// sshShell returns only if it refuses; the connection ends with it.
func (a *app) sshShell(ctx context.Context, s login.Shell) error {
	if err := system.OnlyLinux("a ForceCommand"); err != nil {
		return err
	}
	// Hanging up, and what interrupts or stops a program, refuse.
	ctx, stop := signal.NotifyContext(ctx, system.Interrupts...)
	defer stop()
	err := s.Become(ctx)
	fmt.Fprintf(a.err, "postern: %v\n", err)
	if hint := postern.HintOf(err); hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", hint)
	}
	time.Sleep(lastWord)
	shell.Disconnect()
	return &postern.Error{Code: postern.Internal} // said already, before the connection ends
}
