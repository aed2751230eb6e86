package server

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/sshd/sign"
	"github.com/postern-project/postern/internal/state"
	"golang.org/x/crypto/ssh"
)

// SSHRulesFile is the file in the state directory that says what SSH certificates may do: the
// JSON that sign.ParseRules reads.
const SSHRulesFile = "ssh-rules.json"

// SSHAuthority adapts the certificate authority to the service that issues SSH
// certificates.
type SSHAuthority struct{ *ca.Authority }

// SignUser issues an SSH certificate.
func (a SSHAuthority) SignUser(ctx context.Context, by postern.Actor, c sign.Certificate) (sign.Signed, error) {
	issued, err := a.SignSSHUser(ctx, ca.SSHUserRequest{
		Person: c.Person, Key: c.Key, Principals: c.Principals, Validity: c.Validity, Sources: c.Sources,
		ForceCommand: c.ForceCommand, Extensions: c.Extensions, VerifyRequired: c.VerifyRequired, By: by,
	})
	if err != nil {
		return sign.Signed{}, err
	}
	known, err := a.KnownHosts()
	return sign.Signed{
		Line: string(issued.Line()), Serial: issued.Serial, Principals: issued.Principals,
		ValidBefore: issued.ValidBefore, KnownHosts: known,
	}, err
}

// KnownHosts returns the lines of known_hosts that trust the host CAs.
func (a SSHAuthority) KnownHosts() (string, error) { return a.Authority.KnownHosts() }

// UserCAs returns the public keys of the user CAs, a line each.
func (a SSHAuthority) UserCAs() ([]byte, error) { return a.TrustedUserCAs() }

// sshRules reads the rules of a state.
func sshRules(st *state.State) ([]sign.Rule, error) {
	b, err := os.ReadFile(st.Path(SSHRulesFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return sign.ParseRules(b)
}

// NewSSHSignHandler issues SSH certificates to people. Identify returns the person of a
// client certificate.
func NewSSHSignHandler(st *state.State, authority *ca.Authority, one *OneTime,
	identify func(*http.Request) (postern.Actor, bool), log *slog.Logger,
) http.Handler {
	return sign.NewHandler(sign.Deps{
		Signer: SSHAuthority{authority},
		Check:  SSHChecker{OTP: one.Checker, DB: st.Store},
		Certificate: func(ctx context.Context, person string, key ssh.PublicKey) (sign.Certificate, error) {
			return ruledCertificate(ctx, st, person, key)
		},
		Enroller: newSSHEnroller(st, one.refused),
		Identify: identify,
		Address:  func(r *http.Request) string { return front.Address(r).String() },
		Log:      log,
	})
}

// identified returns the person whose client certificate the HTTPS server has verified.
func identified(r *http.Request) (postern.Actor, bool) {
	who, serial, ok := front.Identify(r)
	return postern.Actor{
		Person: who.Name, Credential: postern.Link{Kind: string(postern.X509Certificate), ID: serial},
		Address: front.Address(r).String(),
	}, ok && who.Name != ""
}

// ruledCertificate returns the certificate that the state's rules allow a person for a key.
func ruledCertificate(ctx context.Context, st *state.State, person string, key ssh.PublicKey) (sign.Certificate,
	error,
) {
	rule, enrolled, err := sshRule(ctx, st, person, key)
	if err != nil {
		return sign.Certificate{}, err
	}
	return rule.Certificate(enrolled.Person, enrolled)
}

// sshRule returns the first of the state's rules for SSH certificates that applies to a
// person and a key, and what is known of the key.
func sshRule(ctx context.Context, st *state.State, person string, key ssh.PublicKey) (sign.Rule, sign.EnrolledKey,
	error,
) {
	p, err := st.Store.People().Person(ctx, person)
	if err != nil {
		return sign.Rule{}, sign.EnrolledKey{}, err
	}
	enrolled, err := st.Store.People().EnrolledSSHKey(ctx, p.Name, key)
	if err != nil {
		return sign.Rule{}, sign.EnrolledKey{}, err
	}
	if enrolled.Disabled {
		return sign.Rule{}, enrolled, postern.Errorf(postern.Denied, "this SSH key is disabled").
			WithHint("enable it in the portal, under Keys, or take another")
	}
	rules, err := sshRules(st)
	if err != nil {
		return sign.Rule{}, sign.EnrolledKey{}, err
	}
	rule, err := sign.RuleFor(rules, p.Groups, enrolled)
	return rule, enrolled, err
}

// SSHRequest asks for an SSH certificate for a key of a person's, or of a host's. Zero
// fields are set by the state's rules; those between Hosts and Validity are a person's.
type SSHRequest struct {
	Person       string
	Hosts        []string      // names and addresses of the host
	Principals   []string      // accounts that it grants access to
	Sources      []string      // addresses or networks that it is valid from
	ForceCommand string        // the one command that it runs
	Extensions   []string      // such as permit-pty
	Validity     time.Duration // from now
}

// SignSSH issues an SSH certificate, a line of text, as this host's administrator.
func SignSSH(
	ctx context.Context, st *state.State, authority *ca.Authority, key ssh.PublicKey, r SSHRequest,
) ([]byte, error) {
	if r.Person != "" {
		signed, err := signSSHUser(ctx, st, authority, key, r)
		return []byte(signed.Line), err
	}
	issued, err := authority.SignSSHHost(ctx, ca.SSHHostRequest{Names: r.Hosts, Key: key, Validity: r.Validity})
	if err != nil {
		return nil, err
	}
	return issued.Line(), nil
}

func signSSHUser(
	ctx context.Context, st *state.State, authority *ca.Authority, key ssh.PublicKey, u SSHRequest,
) (sign.Signed, error) {
	rule, enrolled, err := sshRule(ctx, st, u.Person, key)
	if err != nil {
		return sign.Signed{}, err
	}
	if u.Principals != nil {
		rule.Principals = u.Principals
	}
	c, err := rule.Certificate(enrolled.Person, enrolled)
	if err != nil {
		return sign.Signed{}, err
	}
	if u.Sources != nil {
		c.Sources = u.Sources
	}
	if u.Extensions != nil {
		c.Extensions = u.Extensions
	}
	if u.ForceCommand != "" {
		c.ForceCommand = u.ForceCommand
	}
	if u.Validity != 0 {
		c.Validity = u.Validity
	}
	return SSHAuthority{Authority: authority}.SignUser(ctx, postern.Actor{}, c)
}
