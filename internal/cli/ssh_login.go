package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/login"
	"github.com/postern-project/postern/internal/sshd/shell"
	"github.com/postern-project/postern/internal/system"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newSSHLogin(a *app) *cobra.Command {
	var l client.Login
	cmd := plain("login SERVER", "Get a short-lived SSH certificate for your key",
		func(ctx context.Context, args []string) error {
			l.Server, l.Code = args[0], a.askCode
			signed, err := l.Run(ctx)
			return a.done(err, "certificate %d opens %s until %s\n", signed.Serial,
				strings.Join(signed.Principals, ", "),
				signed.ValidBefore.Local().Format("2006-01-02 15:04"))
		})
	f := cmd.Flags()
	loginFlags(f, &l)
	f.StringVar(&l.Key, "key", "", "the public key `FILE` (default ~/.ssh/id_ed25519.pub)")
	f.BoolVar(&l.Agent, "agent", false, "make a key and add it to the ssh-agent")
	f.BoolVar(&l.KnownHosts, "known-hosts", false, "trust the server's hosts, in ~/.ssh/known_hosts")
	return cmd
}

// loginFlags are the flags by which a person authenticates to a server.
func loginFlags(f *pflag.FlagSet, l *client.Login) {
	f.StringVar(&l.Person, "person", "", "your `NAME` there (default: your user name here)")
	f.StringVar(&l.Cert, "cert", "", "prove yourself with the client certificate in this `FILE`, PEM")
	f.StringVar(&l.CertKey, "cert-key", "", "its private key `FILE`, PEM (default: in the same file)")
	f.StringVar(&l.CA, "ca", "", "trust the server by the certificates in this `FILE`, PEM (default: the system's)")
}

func newSSHEnrol(a *app) *cobra.Command {
	var e client.Enrol
	cmd := &cobra.Command{
		Use:   "enrol SERVER",
		Short: "Make an SSH key in your FIDO2 key, and enrol it",
		RunE: func(cmd *cobra.Command, args []string) error {
			e.Server, e.Code = args[0], a.askCode
			e.Keygen = func(c *exec.Cmd) error {
				c.Stdin, c.Stdout, c.Stderr = os.Stdin, cmd.ErrOrStderr(), cmd.ErrOrStderr()
				return c.Run()
			}
			k, err := e.Run(cmd.Context())
			verified := map[bool]string{true: "asks for its PIN", false: "asks for a touch alone"}[k.Verified]
			return a.done(err, "%s is enrolled for %s: a FIDO2 key of %s, which %s\n", k.Fingerprint, k.Person, k.Maker,
				verified)
		},
	}
	f := cmd.Flags()
	loginFlags(f, &e.Login)
	f.StringVar(&e.Key, "key", "", "the `FILE` of the key to make (default ~/.ssh/id_ed25519_sk)")
	f.StringVar(&e.Type, "type", "ed25519-sk", "the `TYPE` of the key: ed25519-sk, or ecdsa-sk for older FIDO2 keys")
	f.StringVar(&e.Label, "label", "", "your `WORDS` for it (default: its maker)")
	f.StringVar(&e.Provider, "provider", "", "use the library `FILE` of FIDO2 keys (default: OpenSSH's own)")
	f.BoolVar(&e.NoPIN, "no-pin", false, "make a key that a touch alone uses")
	f.BoolVar(&e.Resident, "resident", false, "keep in the FIDO2 key what other computers need to use it")
	return cmd
}

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
