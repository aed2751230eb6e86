package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/sshd/audit"
	"github.com/postern-project/postern/internal/state"
	"golang.org/x/crypto/ssh"
)

// SSHUserCA returns what the SSH certificates open that a state's authority has issued to
// people, or issues by the state's rules.
func SSHUserCA(ctx context.Context, st *state.State, authority *ca.Authority) (*audit.UserCA, error) {
	_, keys, err := authority.SSHCA(ca.SSHUser)
	if err != nil {
		return nil, err
	}
	u := &audit.UserCA{Keys: keys}
	rules, err := sshRules(st)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		g := audit.Grant{
			Principals: r.Principals, Command: r.ForceCommand,
			Forwards: slices.Contains(r.Extensions, "permit-port-forwarding"),
		}
		if slices.ContainsFunc(r.Principals, func(p string) bool { return strings.Contains(p, "{person}") }) {
			g.Principals = nil // any person's
		}
		u.Grants = append(u.Grants, g)
	}
	issued, err := authority.SSHCertificates(ctx, "")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, c := range issued {
		if c.Revoked.IsZero() && now.Before(c.ValidBefore) {
			g, err := grantOf(c)
			if err != nil {
				return nil, err
			}
			u.Grants = append(u.Grants, g...)
		}
	}
	return u, nil
}

// grantOf returns what a user certificate permits, nothing of a host's.
func grantOf(c ca.SSHCertificate) ([]audit.Grant, error) {
	key, err := ssh.ParsePublicKey(c.Certificate)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "SSH certificate %d: %w", c.Serial, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.UserCert {
		return nil, nil
	}
	_, forwards := cert.Extensions["permit-port-forwarding"]
	return []audit.Grant{{
		Principals: cert.ValidPrincipals, Command: cert.CriticalOptions["force-command"], Forwards: forwards,
	}}, nil
}
