package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/durable"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/spf13/cobra"
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
		Long: `Sign an SSH public key, and write the certificate beside it, in KEY-cert.pub.

With --person it is a user certificate. What is not said here comes from the
state's rules, ssh-rules.json: an array of objects with groups, principals
({person} stands for the name), sources, force_command, extensions and validity;
the first that fits counts. A rule without groups is for everybody but those who
signed up by themselves and are not approved yet (postern user set). The account
root is opened only by a rule, or --principal, that says root. With --host it is a host certificate, good for those
names.

People get their own with postern ssh login.`,
		Example: "  postern ssh sign --person alice id_ed25519.pub\n  postern ssh sign --person ci --principal deploy --source 192.0.2.0/24 --force-command /usr/bin/deploy --validity 1h ci.pub\n  postern ssh sign --host web1.example.com --host 192.0.2.10 /etc/ssh/ssh_host_ed25519_key.pub",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.sshSign(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.user.Person, "person", "", "the `PERSON` whose key it is")
	f.StringSliceVar(&o.host, "host", nil, "a `NAME` or address of the host whose key it is; can be repeated")
	f.StringSliceVar(&o.user.Principals, "principal", nil, "an `ACCOUNT` that it opens; can be repeated")
	f.StringSliceVar(&o.user.Sources, "source", nil, "an address or `NETWORK` that it is good from; can be repeated")
	f.StringVar(&o.user.ForceCommand, "force-command", "", "the one `COMMAND` that it runs")
	f.StringSliceVar(&o.user.Extensions, "extension", nil, "an `EXTENSION` that it permits, such as permit-pty; can be repeated")
	f.DurationVar(&o.user.Validity, "validity", 0, "the `DURATION` that it is valid (default: by rule, else the CA's own)")
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
	st, authority, err := a.openCA(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	var line string
	if o.user.Person != "" {
		var signed sign.Signed
		signed, err = server.SignSSHUser(ctx, st, authority, key, o.user)
		line = signed.Line
	} else {
		var issued *ca.SSHIssued
		if issued, err = authority.SignSSHHost(ctx, ca.SSHHostRequest{Names: o.host, Key: key, Validity: o.user.Validity}); err == nil {
			line = string(issued.Line())
		}
	}
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = client.CertificateFile(file)
	}
	return a.writeText(o.out, line)
}

// writeText writes a file, or standard output for "-" and "".
func (a *app) writeText(path, text string) error {
	if path == "" || path == "-" {
		_, err := fmt.Fprint(a.out, text)
		return err
	}
	if err := durable.Output(path, []byte(text), 0o644); err != nil {
		return postern.Errorf(postern.Unavailable, "%w", err)
	}
	fmt.Fprintf(a.out, "wrote %s\n", path)
	return nil
}

// newSSHOutput returns a command that prints something of the CA's.
func newSSHOutput(a *app, use, short, long, example string, args cobra.PositionalArgs, get func(context.Context, *ca.Authority, []string) (string, error)) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: usageArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, authority, err := a.openCA(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			text, err := get(cmd.Context(), authority, args)
			if err != nil {
				return err
			}
			return a.writeText(out, text)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to this `FILE` instead of standard output")
	return cmd
}

func newSSHKRL(a *app) *cobra.Command {
	return newSSHOutput(a, "krl", "Print the list of revoked SSH keys and certificates",
		"Print the key revocation list (KRL) that sshd's RevokedKeys reads. The server has it at /ssh/krl, too.",
		"  postern ssh krl -o /etc/ssh/postern_revoked", cobra.NoArgs,
		func(ctx context.Context, authority *ca.Authority, _ []string) (string, error) {
			b, err := authority.KRL(ctx)
			return string(b), err
		})
}

func newSSHKnownHosts(a *app) *cobra.Command {
	return newSSHOutput(a, "known-hosts [PATTERN...]", "Print the lines that make this house's hosts known",
		"Print the lines for known_hosts that make a client trust the host certificates of this house, for hosts that match a PATTERN (all, if there is none).",
		"  postern ssh known-hosts '*.example.com' >> ~/.ssh/known_hosts", cobra.ArbitraryArgs,
		func(_ context.Context, authority *ca.Authority, patterns []string) (string, error) {
			return authority.KnownHosts(patterns...)
		})
}

func newSSHUserCA(a *app) *cobra.Command {
	return newSSHOutput(a, "user-ca", "Print the file for sshd's TrustedUserCAKeys",
		"Print the public keys of the CAs that sign people's SSH keys.",
		"  postern ssh user-ca -o /etc/ssh/postern_user_ca.pub", cobra.NoArgs,
		func(_ context.Context, authority *ca.Authority, _ []string) (string, error) {
			b, err := authority.TrustedUserCAs()
			return string(b), err
		})
}

func newSSHRevoke(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke SERIAL|KEY.pub",
		Short:   "Revoke an SSH certificate or key",
		Long:    "Revoke a certificate by its serial number, or a key, and with it every certificate for it. Hosts know it when they have the new KRL.",
		Example: "  postern ssh revoke 4711\n  postern ssh revoke lost.pub",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, authority, err := a.openCA(cmd.Context())
			if err != nil {
				return err
			}
			defer st.Close()
			if serial, err := strconv.ParseUint(args[0], 10, 64); err == nil {
				return authority.RevokeSSH(cmd.Context(), serial, postern.Actor{})
			}
			key, err := client.ReadPublicKey(args[0])
			if err != nil {
				return err
			}
			return authority.RevokeSSHKey(cmd.Context(), key, postern.Actor{})
		},
	}
}
