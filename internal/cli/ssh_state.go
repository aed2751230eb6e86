//go:build !noserver

package cli

import (
	"context"

	"github.com/postern-project/postern/internal/ca"
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
