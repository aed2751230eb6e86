package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// SSHUserRequest asks for an SSH user certificate.
type SSHUserRequest struct {
	Person       string        // Person.Name; becomes the key ID that sshd logs
	Key          ssh.PublicKey // the person's own
	Principals   []string      // accounts that it may log in to; nil: the person's name
	Validity     time.Duration // 0: the configured one
	Sources      []string      // addresses or networks it may be used from; nil: any
	ForceCommand string        // "": none
	Extensions   []string      // permit-pty and so on; nil: permit-pty alone
	// VerifyRequired has sshd require that the key, which is in a FIDO2 key, verified its
	// user.
	VerifyRequired bool
	By             postern.Actor
}

// SSHHostRequest asks for an SSH host certificate.
type SSHHostRequest struct {
	Names    []string // host names and addresses that clients type; the first becomes the key ID
	Key      ssh.PublicKey
	Validity time.Duration // 0: the configured one
	By       postern.Actor
}

// SSHExtensions are the extensions that a user certificate may carry
// (OpenSSH's PROTOCOL.certkeys).
var SSHExtensions = []string{
	"no-touch-required", "permit-X11-forwarding", "permit-agent-forwarding",
	"permit-port-forwarding", "permit-pty", "permit-user-rc",
}

// SSHIssued is an SSH certificate that the store holds.
type SSHIssued struct {
	SSHCertificate
	Cert *ssh.Certificate
}

// Line returns the certificate as a line of a …-cert.pub file.
func (s *SSHIssued) Line() []byte {
	line := bytes.TrimSuffix(ssh.MarshalAuthorizedKey(s.Cert), []byte("\n"))
	return append(line, " "+s.KeyID+"\n"...)
}

// SignSSHUser certifies a person's key. It is in the store when this returns. It
// fails with Denied for a person who is not active.
func (a *Authority) SignSSHUser(ctx context.Context, r SSHUserRequest) (*SSHIssued, error) {
	p, err := a.store.Person(ctx, r.Person)
	if err != nil {
		return nil, err
	}
	if !p.Active() {
		return nil, postern.Errorf(postern.Denied, "%s is %s", p.Name, p.Status)
	}
	if r.Principals == nil {
		r.Principals = []string{p.Name}
	}
	if err := checkPrincipals(r.Principals); err != nil {
		return nil, err
	}
	perms, err := sshPermissions(r)
	if err != nil {
		return nil, err
	}
	cert := &ssh.Certificate{
		Key: r.Key, CertType: ssh.UserCert, KeyId: p.Name, ValidPrincipals: r.Principals,
		Permissions: perms,
	}
	return a.signSSH(ctx, SSHUser, cert, p.Name, r.Validity, r.By)
}

// SignSSHHost certifies a host's key. It is in the store when this returns.
func (a *Authority) SignSSHHost(ctx context.Context, r SSHHostRequest) (*SSHIssued, error) {
	_, clean, err := cleanNames(r.Names)
	if err != nil {
		return nil, err
	}
	for _, n := range clean {
		if strings.HasPrefix(n, "*") {
			return nil, postern.Errorf(postern.Invalid, "an SSH host certificate takes no wildcard such as %s", n)
		}
	}
	cert := &ssh.Certificate{Key: r.Key, CertType: ssh.HostCert, KeyId: clean[0], ValidPrincipals: clean}
	return a.signSSH(ctx, SSHHost, cert, "", r.Validity, r.By)
}

// checkPrincipals refuses a certificate without principals: sshd takes it for
// every account.
func checkPrincipals(list []string) error {
	if len(list) == 0 || len(list) > 256 {
		return postern.Errorf(postern.Invalid, "an SSH user certificate needs 1 to 256 principals")
	}
	for _, p := range list {
		if p == "" || len(p) > 256 || strings.ContainsFunc(p, func(r rune) bool {
			return r <= ' ' || r == ',' || r == 0x7f
		}) {
			return postern.Errorf(postern.Invalid, "%q is not a principal", p)
		}
	}
	return nil
}

func sshPermissions(r SSHUserRequest) (ssh.Permissions, error) {
	perms := ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{}}
	if len(r.Sources) > 0 {
		var list []string
		for _, s := range r.Sources {
			prefix, err := netip.ParsePrefix(s)
			if addr, aerr := netip.ParseAddr(s); aerr == nil && addr.Zone() == "" {
				prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
			}
			if err != nil {
				return perms, postern.Errorf(postern.Invalid, "%q is not an address or network", s)
			}
			list = append(list, prefix.Masked().String())
		}
		perms.CriticalOptions["source-address"] = strings.Join(list, ",")
	}
	if r.ForceCommand != "" {
		if strings.ContainsFunc(r.ForceCommand, func(c rune) bool { return c < ' ' }) {
			return perms, postern.Errorf(postern.Invalid, "the forced command holds a control character")
		}
		perms.CriticalOptions["force-command"] = r.ForceCommand
	}
	if r.VerifyRequired {
		perms.CriticalOptions["verify-required"] = ""
	}
	if r.Extensions == nil {
		r.Extensions = []string{"permit-pty"}
	}
	for _, e := range r.Extensions {
		if !slices.Contains(SSHExtensions, e) {
			return perms, postern.Errorf(postern.Invalid, "unknown SSH extension %q", e).WithHint("one of %s",
				strings.Join(SSHExtensions, ", "))
		}
		perms.Extensions[e] = ""
	}
	return perms, nil
}

func (a *Authority) signSSH(ctx context.Context, role Role, cert *ssh.Certificate, person string,
	validity time.Duration, by postern.Actor,
) (*SSHIssued, error) {
	iss, err := a.signing(role)
	if err != nil {
		return nil, err
	}
	if err := a.checkSSHKey(cert.Key); err != nil {
		return nil, err
	}
	policy, err := a.policy(Profile(role)) // of the same name
	if err != nil {
		return nil, err
	}
	after, before, err := Period{Validity: validity}.in(policy, a.now(), a.cfg.Backdate)
	if err != nil {
		return nil, err
	}
	cert.ValidAfter, cert.ValidBefore = uint64(after.Unix()), uint64(before.Unix())
	if cert.Serial, err = a.serials.next(ctx, a.store); err != nil {
		return nil, err
	}
	signer, err := sshSigner(iss)
	if err != nil {
		return nil, err
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "sign with the %s CA: %w", iss.ID, err)
	}
	rec := SSHCertificate{
		Serial: cert.Serial, Issuer: iss.ID, KeyID: cert.KeyId, Person: person, Principals: cert.ValidPrincipals,
		Fingerprint: ssh.FingerprintSHA256(cert.Key), Certificate: cert.Marshal(),
		ValidAfter: after, ValidBefore: before, Issued: a.cfg.Now().UTC().Truncate(time.Microsecond),
	}
	if err := a.store.AddSSHCertificate(ctx, by, rec, sshIssuedEvent(rec, cert, by)); err != nil {
		return nil, err
	}
	return &SSHIssued{SSHCertificate: rec, Cert: cert}, nil
}

// sshSigner returns the issuer's key for SSH signatures. An RSA key never signs
// with SHA-1.
func sshSigner(iss *issuer) (ssh.Signer, error) {
	s, err := ssh.NewSignerFromSigner(iss.signer)
	if err != nil {
		return nil, postern.Errorf(postern.Internal, "CA %s: %w", iss.ID, err)
	}
	if s.PublicKey().Type() != ssh.KeyAlgoRSA {
		return s, nil
	}
	return ssh.NewSignerWithAlgorithms(s.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSASHA512})
}

// checkSSHKey refuses keys that are weak, that are certificates themselves, or
// that belong to the CAs.
func (a *Authority) checkSSHKey(key ssh.PublicKey) error {
	if key == nil {
		return postern.Errorf(postern.Invalid, "no SSH public key given")
	}
	switch key.Type() {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return nil // made in a security key
	}
	ck, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return postern.Errorf(postern.Invalid, "an SSH key of type %s is not certified",
			key.Type()).WithHint("use ssh-keygen -t ed25519")
	}
	switch pub := ck.CryptoPublicKey().(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		if err := CheckKey(pub); err != nil {
			return postern.Errorf(postern.Invalid, "%w", err).WithHint("use ssh-keygen -t ed25519")
		}
	default:
		if key.Type() != ssh.KeyAlgoED25519 {
			return postern.Errorf(postern.Invalid, "an SSH key of type %s is not certified",
				key.Type()).WithHint("use ssh-keygen -t ed25519")
		}
	}
	for _, i := range a.list() {
		if samePublic(ck.CryptoPublicKey(), i.pub) {
			return postern.Errorf(postern.Denied, "that is the key of the %s CA", i.ID)
		}
	}
	return nil
}

func sshIssuedEvent(c SSHCertificate, cert *ssh.Certificate, by postern.Actor) postern.Event {
	serial := strconv.FormatUint(c.Serial, 10)
	ev := postern.Event{
		Kind: postern.EventSSHCertIssued, Outcome: postern.OK, Person: c.Person, Address: by.Address, Object: serial,
		Links: []postern.Link{
			{Kind: string(postern.SSHCertificate), ID: serial},
			{Kind: string(postern.SSHKey), ID: c.Fingerprint},
		},
		Details: map[string]string{
			"issuer": c.Issuer, "key_id": c.KeyID, "principals": strings.Join(c.Principals, " "),
			"not_after": c.ValidBefore.UTC().Format(time.RFC3339),
		},
	}
	maps.Copy(ev.Details, cert.CriticalOptions)
	if other := by.By(c.Person); other != "" {
		ev.Details["by"] = other
	}
	return ev
}

// sshSerials returns serial numbers from blocks that the store reserves. Numbers of
// a block that a process did not use are lost.
type sshSerials struct {
	mu    sync.Mutex
	first uint64
	left  int
	block int
}

func (s *sshSerials) next(ctx context.Context, store Store) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == 0 {
		s.block = min(max(1, 2*s.block), 64)
		first, err := store.SSHSerials(ctx, s.block)
		if err != nil {
			return 0, err
		}
		s.first, s.left = first, s.block
	}
	n := s.first
	s.first++
	s.left--
	return n, nil
}

// RevokeSSH revokes an SSH certificate by its serial number. The next KRL holds
// it.
func (a *Authority) RevokeSSH(ctx context.Context, serial uint64, by postern.Actor) error {
	c, err := a.store.SSHCertificate(ctx, serial)
	if err != nil {
		return err
	}
	id := strconv.FormatUint(serial, 10)
	return a.store.RevokeSSHCertificate(ctx, serial, a.now(), postern.Event{
		Kind: postern.EventSSHRevoked, Outcome: postern.OK, Person: c.Person, Address: by.Address, Object: id,
		Links: []postern.Link{{Kind: string(postern.SSHCertificate), ID: id}},
	})
}

// RevokeSSHKey revokes a plain SSH key, and with it every certificate for it.
func (a *Authority) RevokeSSHKey(ctx context.Context, key ssh.PublicKey, by postern.Actor) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	fp := ssh.FingerprintSHA256(key)
	return a.store.RevokeSSHKey(ctx, fp, key.Marshal(), a.now(), postern.Event{
		Kind: postern.EventSSHRevoked, Outcome: postern.OK, Person: by.Person, Address: by.Address, Object: fp,
		Links: []postern.Link{{Kind: string(postern.SSHKey), ID: fp}},
	})
}

// SSHCertificates returns a person's certificates, or everybody's for "", newest
// first.
func (a *Authority) SSHCertificates(ctx context.Context, person string) ([]SSHCertificate, error) {
	return a.store.SSHCertificates(ctx, person)
}

// KnownHosts returns the known_hosts lines that make a client trust the host
// CAs for hosts that match the patterns ("*" if there are none).
func (a *Authority) KnownHosts(patterns ...string) (string, error) {
	if len(patterns) == 0 {
		patterns = []string{"*"}
	}
	for _, p := range patterns {
		if p == "" || strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r == ',' || r == 0x7f }) {
			return "", postern.Errorf(postern.Invalid, "%q is not a host pattern", p)
		}
	}
	_, all, err := a.SSHCA(SSHHost)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, key := range all {
		fmt.Fprintf(&b, "@cert-authority %s %s", strings.Join(patterns, ","), ssh.MarshalAuthorizedKey(key))
	}
	return b.String(), nil
}

// TrustedUserCAs returns the file that sshd's TrustedUserCAKeys names.
func (a *Authority) TrustedUserCAs() ([]byte, error) {
	_, all, err := a.SSHCA(SSHUser)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, key := range all {
		b.Write(ssh.MarshalAuthorizedKey(key))
	}
	return b.Bytes(), nil
}
