package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/sshd"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/hostconf"
	"github.com/postern-project/postern/internal/sshd/shell"
	"github.com/postern-project/postern/internal/sshd/socket"
	"github.com/postern-project/postern/internal/system"
	"github.com/postern-project/postern/otp"
	"github.com/spf13/cobra"
)

type sshShellOptions struct {
	config  string
	accept  []string
	timeout time.Duration
}

func newSSHShell(a *app) *cobra.Command {
	var o sshShellOptions
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
nobody can type a code (sftp, scp, rsync), give it with
ssh -o SetEnv=LC_POSTERN_OTP=CODE.`,
		Example: "  # sshd_config:\n  Match User fred\n    ForceCommand /usr/bin/postern ssh shell\n    DisableForwarding yes\n    PermitTunnel no\n    PermitUserRC no\n    MaxSessions 1",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.sshShell(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.config, "config", "/etc/yubikey_shell", "the `FILE` of settings")
	f.StringSliceVar(&o.accept, "accept", nil, "start although this `CHANNEL` is open, named as postern ssh check names it")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "the `DURATION` that typing the code may take")
	return cmd
}

// lastWord is how long sshd has to pass on why, before the connection ends.
const lastWord = 200 * time.Millisecond

// sshShell returns only if it refuses; the connection ends with it.
func (a *app) sshShell(ctx context.Context, o sshShellOptions) error {
	if err := system.OnlyLinux("a ForceCommand"); err != nil {
		return err
	}
	// Hanging up, and what interrupts or stops a program, are noes.
	ctx, stop := signal.NotifyContext(ctx, system.Interrupts...)
	defer stop()
	err := a.becomeShell(ctx, o)
	fmt.Fprintf(a.err, "postern: %v\n", err)
	if hint := postern.HintOf(err); hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", hint)
	}
	time.Sleep(lastWord)
	shell.Disconnect()
	return &postern.Error{Code: postern.Internal} // said already, before the connection ends
}

func (a *app) becomeShell(ctx context.Context, o sshShellOptions) error {
	account, login, err := accountOf(os.Getuid())
	if err != nil {
		return err
	}
	cfg, err := hostconf.ReadShellConfig(o.config)
	if err != nil {
		return err
	}
	s := shell.Shell{
		User: account, Login: login, Environ: os.Environ(), TrustedKeys: cfg.TrustedKeys,
		Accepted: o.accept, Debug: cfg.Debug, Timeout: o.timeout, Stdin: os.Stdin, Stdout: a.out, Stderr: a.err,
		Log: shell.LogAuth,
	}
	for _, f := range audit.Beside(ctx, os.Getpid(), account, os.Getenv("SSH_CONNECTION")) {
		s.Open = append(s.Open, shell.Channel{ID: f.ID, Title: f.Title, Fix: f.Fix})
	}
	if err := shellValidator(&s, cfg); err != nil {
		return err
	}
	if err := s.Run(ctx); err != nil {
		return err
	}
	path, argv, environ := s.Command()
	return fmt.Errorf("start %s: %w", path, syscall.Exec(path, argv, environ))
}

// shellValidator chooses who says whether a code is good.
func shellValidator(s *shell.Shell, cfg hostconf.ShellConfig) error {
	switch {
	case cfg.APIID == 0:
		s.AnyKey = true
		s.Validate = func(ctx context.Context, code string) error {
			address, _, _ := strings.Cut(os.Getenv("SSH_CONNECTION"), " ")
			v, err := socket.AskDaemon(ctx, sshd.ShellSocket, socket.Question{Ask: socket.AskCode, User: s.User, Host: address, Code: code})
			if err == nil && v != socket.Yes {
				err = postern.Errorf(postern.Denied, "the code was not accepted")
			}
			return err
		}
	case cfg.APIKey != "":
		key, err := base64.StdEncoding.DecodeString(cfg.APIKey)
		if err != nil {
			return postern.Errorf(postern.Invalid, "YUBICO_API_KEY is not base64")
		}
		c := otp.ClientConfig{ID: cfg.APIID, Key: key}
		if cfg.URL != "" {
			c.URLs = []string{cfg.URL}
		}
		client, err := otp.NewClient(c)
		if err != nil {
			return err
		}
		s.Validate = func(ctx context.Context, typed string) error { return verifyCode(ctx, client, typed) }
	default:
		s.Validate = func(ctx context.Context, code string) error {
			return shell.ValidateUnsigned(ctx, cfg.URL, cfg.APIID, code)
		}
	}
	return nil
}

func verifyCode(ctx context.Context, client *otp.Client, typed string) error {
	code, ok := otp.ParseCode(typed)
	if !ok {
		return postern.Errorf(postern.Denied, "that is no code of a YubiKey")
	}
	answer, err := client.Verify(ctx, code)
	if err == nil && answer.Status != otp.StatusOK {
		err = postern.Errorf(postern.Denied, "the validation service says %s", answer.Status)
	}
	return err
}

// accountOf returns a user's name and shell, as passwd(5) or whatever stands in
// for it has them.
func accountOf(uid int) (name, shell string, err error) {
	out, err := exec.Command("/usr/bin/getent", "passwd", strconv.Itoa(uid)).Output()
	if err != nil {
		return "", "", fmt.Errorf("user %d in passwd: %w", uid, err)
	}
	f := strings.Split(strings.TrimSpace(string(out)), ":")
	if len(f) != 7 || f[2] != strconv.Itoa(uid) {
		return "", "", postern.Errorf(postern.NotFound, "user %d is not in passwd", uid)
	}
	return f[0], f[6], nil
}
