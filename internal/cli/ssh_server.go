//go:build !noserver

package cli

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/client"
	"github.com/postern-project/postern/internal/server"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/sshd/setup"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
	"github.com/spf13/cobra"
)

// sshCommands returns the commands of ssh that work on a server's own authority.
func sshCommands(a *app) []*cobra.Command {
	return []*cobra.Command{newSSHSign(a), newSSHRevoke(a), newSSHKRL(a), newSSHKnownHosts(a), newSSHUserCA(a)}
}

// auditState has an audit of this host ask what its own state knows.
func (a *app) auditState(o *audit.Auditor) { o.TimeCodes, o.UserCA = a.timeCodes, a.userCA }

// recordAudit records on the timeline whether there are findings, where that has changed.
func (a *app) recordAudit(ctx context.Context, r *audit.Report) error {
	return a.withState(ctx, func(st *state.State) error { return server.RecordAudit(ctx, st, r) })
}

// timeCodes reports whether a person in this host's own state has an authenticator that
// makes codes by time.
func (a *app) timeCodes(ctx context.Context) (used bool, err error) {
	err = a.withOTP(ctx, func(keys *store.OTP) error {
		used, err = keys.TimeCodes(ctx)
		return err
	})
	return used, err
}

// userCA returns what the certificates of this host's own authority for SSH open.
func (a *app) userCA(ctx context.Context) (u *audit.UserCA, err error) {
	err = a.withState(ctx, func(st *state.State) error {
		return openCA(ctx, st, ca.Config{}, func(authority *ca.Authority) error {
			u, err = server.SSHUserCA(ctx, st, authority)
			return err
		})
	})
	return u, err
}

// userCAFiles reads the CAs of SSH certificates and the revoked keys from this host's own
// state.
func (a *app) userCAFiles(ctx context.Context, s *setup.Setup) error {
	return a.withCA(ctx, func(authority *ca.Authority) (err error) {
		if s.UserCA, err = authority.TrustedUserCAs(); err == nil {
			s.KRL, err = authority.KRL(ctx)
		}
		return err
	})
}

// hasFactor reports whether an account's person has anything to make a code with.
func (a *app) hasFactor(ctx context.Context, account string) (has bool, err error) {
	err = a.withOneTime(ctx, func(one *server.OneTime) error {
		has, err = one.Checker.HasFactor(ctx, account)
		return err
	})
	return has, err
}

func newSSHSign(a *app) *cobra.Command {
	var r server.SSHRequest
	var out string
	cmd := command("sign KEY.pub", "Sign a person's or a host's SSH key", a.withState,
		func(ctx context.Context, st *state.State, args []string) error {
			if (r.Person == "") == (len(r.Hosts) == 0) {
				return postern.Errorf(postern.Invalid, "give either --person or --host")
			}
			key, err := client.ReadPublicKey(args[0])
			if err != nil {
				return err
			}
			return openCA(ctx, st, ca.Config{}, func(authority *ca.Authority) error {
				line, err := server.SignSSH(ctx, st, authority, key, r)
				if err != nil {
					return err
				}
				return a.print(cmp.Or(out, client.CertificateFile(args[0])), line)
			})
		})
	f := cmd.Flags()
	f.StringVar(&r.Person, "person", "", "the `PERSON` whose key it is")
	f.StringSliceVar(&r.Hosts, "host", nil, "a `NAME` or address of the host whose key it is; can be repeated")
	f.StringSliceVar(&r.Principals, "principal", nil, "an `ACCOUNT` that it opens; can be repeated")
	f.StringSliceVar(&r.Sources, "source", nil, "an address or `NETWORK` that it is good from; can be repeated")
	f.StringVar(&r.ForceCommand, "force-command", "", "the one `COMMAND` that it runs")
	f.StringSliceVar(&r.Extensions, "extension", nil,
		"an `EXTENSION` that it permits, such as permit-pty; can be repeated")
	f.DurationVar(&r.Validity, "validity", 0,
		"the `DURATION` that it is valid (default: by rule, else the CA's own)")
	f.StringVarP(&out, "out", "o", "", "write the certificate to this `FILE`; - is standard output")
	return cmd
}

func newSSHKRL(a *app) *cobra.Command {
	return fileCommand(a, "krl", "Print the list of revoked SSH keys and certificates", a.withCA,
		func(ctx context.Context, authority *ca.Authority, _ []string) ([]byte, error) {
			return authority.KRL(ctx)
		})
}

func newSSHKnownHosts(a *app) *cobra.Command {
	return fileCommand(a, "known-hosts [PATTERN...]", "Print the lines of known_hosts for this installation's hosts",
		a.withCA, func(_ context.Context, authority *ca.Authority, patterns []string) ([]byte, error) {
			lines, err := authority.KnownHosts(patterns...)
			return []byte(lines), err
		})
}

func newSSHUserCA(a *app) *cobra.Command {
	return fileCommand(a, "user-ca", "Print the file for sshd's TrustedUserCAKeys", a.withCA,
		func(_ context.Context, authority *ca.Authority, _ []string) ([]byte, error) {
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
