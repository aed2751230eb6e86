package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/shell"
	"github.com/postern-project/postern/internal/system"
	"github.com/spf13/cobra"
)

func newSSHShell(a *app) *cobra.Command {
	shell := server.SSHShell{Stdin: os.Stdin, Stdout: a.out, Stderr: a.err}
	cmd := &cobra.Command{
		Use:   "shell",
		Short: "Ask for a code, then become the user's shell: a ForceCommand",
		Long: `For hosts whose sshd can only use ForceCommand: ask for a YubiKey code, check it,
and become what sshd would have run: the login shell, or the client's command.

Reads /etc/yubikey_shell (YUBICO_API_ID, TRUSTED_KEYS_FILE, DEBUG; besides,
YUBICO_API_URL and YUBICO_API_KEY) and /etc/yubikey_mappings. Without an API
identifier the Postern daemon of this host is asked. DEBUG=1 has it tell on
standard error what it finds on the way.

sshd has let the client in before this runs. So it refuses to start where sshd
leaves a channel open beside it, by the configuration that this sshd was started
with, and says which and how to close it; also where that cannot be known, as for
an sshd that systemd or inetd starts for each connection. Where
no code can be typed (sftp, scp, rsync), give it with
ssh -o SetEnv=LC_POSTERN_OTP=CODE.`,
		Example: "  # sshd_config:\n  Match User fred\n    ForceCommand /usr/bin/postern ssh shell\n" +
			"    DisableForwarding yes\n    PermitTunnel no\n    PermitUserRC no\n    MaxSessions 1",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sshShell(cmd.Context(), shell) },
	}
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
func (a *app) sshShell(ctx context.Context, s server.SSHShell) error {
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
