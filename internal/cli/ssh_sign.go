package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/state"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

type sshSignOptions struct {
	user server.SSHUser
	host []string
	out  string
}

func newSSHSign(a *app) *cobra.Command {
	var o sshSignOptions
	cmd := &cobra.Command{
		Use:   "sign KEY.pub",
		Short: "Sign a person's or a host's SSH key",
		RunE:  func(cmd *cobra.Command, args []string) error { return a.sshSign(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.user.Person, "person", "", "the `PERSON` whose key it is")
	f.StringSliceVar(&o.host, "host", nil, "a `NAME` or address of the host whose key it is; can be repeated")
	f.StringSliceVar(&o.user.Principals, "principal", nil, "an `ACCOUNT` that it opens; can be repeated")
	f.StringSliceVar(&o.user.Sources, "source", nil, "an address or `NETWORK` that it is good from; can be repeated")
	f.StringVar(&o.user.ForceCommand, "force-command", "", "the one `COMMAND` that it runs")
	f.StringSliceVar(&o.user.Extensions, "extension", nil,
		"an `EXTENSION` that it permits, such as permit-pty; can be repeated")
	f.DurationVar(&o.user.Validity, "validity", 0,
		"the `DURATION` that it is valid (default: by rule, else the CA's own)")
	f.StringVarP(&o.out, "out", "o", "", "write the certificate to this `FILE`; - is standard output")
	return cmd
}

func (a *app) sshSign(ctx context.Context, file string, o sshSignOptions) error {
	if (o.user.Person == "") == (len(o.host) == 0) {
		return postern.Errorf(postern.Invalid, "give either --person or --host")
	}
	key, err := client.ReadPublicKey(file)
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = client.CertificateFile(file)
	}
	return a.withState(ctx, func(st *state.State) error {
		return openCA(ctx, st, ca.Config{}, func(authority *ca.Authority) error {
			line, err := o.sign(ctx, st, authority, key)
			if err != nil {
				return err
			}
			return a.print(o.out, line)
		})
	})
}

// sign returns the certificate as a line of text.
func (o sshSignOptions) sign(
	ctx context.Context, st *state.State, authority *ca.Authority, key ssh.PublicKey,
) ([]byte, error) {
	if o.user.Person != "" {
		signed, err := server.SignSSHUser(ctx, st, authority, key, o.user)
		return []byte(signed.Line), err
	}
	issued, err := authority.SignSSHHost(ctx, ca.SSHHostRequest{Names: o.host, Key: key, Validity: o.user.Validity})
	if err != nil {
		return nil, err
	}
	return issued.Line(), nil
}

func newSSHKRL(a *app) *cobra.Command {
	return fileCommand(a, &cobra.Command{
		Use: "krl", Short: "Print the list of revoked SSH keys and certificates",
	}, a.withCA, func(ctx context.Context, authority *ca.Authority, _ []string) ([]byte, error) {
		return authority.KRL(ctx)
	})
}

func newSSHKnownHosts(a *app) *cobra.Command {
	return fileCommand(a, &cobra.Command{
		Use: "known-hosts [PATTERN...]", Short: "Print the lines of known_hosts for this installation's hosts",
	}, a.withCA, func(_ context.Context, authority *ca.Authority, patterns []string) ([]byte, error) {
		lines, err := authority.KnownHosts(patterns...)
		return []byte(lines), err
	})
}

func newSSHUserCA(a *app) *cobra.Command {
	return fileCommand(a, &cobra.Command{
		Use: "user-ca", Short: "Print the file for sshd's TrustedUserCAKeys",
	}, a.withCA, func(_ context.Context, authority *ca.Authority, _ []string) ([]byte, error) {
		return authority.TrustedUserCAs()
	})
}

func newSSHRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke (SERIAL | KEY.pub)...",
		Short: "Revoke SSH certificates or keys",
		Args:  cobra.MinimumNArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.revokeSSH(cmd.Context(), args) },
	}
}

// revokeSSH revokes certificates, by their serial numbers, and keys, by their files.
func (a *app) revokeSSH(ctx context.Context, args []string) error {
	return a.withCA(ctx, func(authority *ca.Authority) error {
		for _, arg := range args {
			if err := revokeOneSSH(ctx, authority, arg); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "revoked %s\n", arg)
		}
		return nil
	})
}

func revokeOneSSH(ctx context.Context, authority *ca.Authority, arg string) error {
	if serial, err := strconv.ParseUint(arg, 10, 64); err == nil {
		return authority.RevokeSSH(ctx, serial, postern.Actor{})
	}
	key, err := client.ReadPublicKey(arg)
	if err != nil {
		return err
	}
	return authority.RevokeSSHKey(ctx, key, postern.Actor{})
}
