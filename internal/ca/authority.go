package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// Authority issues, renews and revokes. It is safe for concurrent use; several
// processes may work over one Store.
type Authority struct {
	cfg   Config
	store Store

	mu      sync.RWMutex
	issuers []*issuer // oldest first
	root    *x509.Certificate
	url     string // see URL
	chosen  bool   // see URLChosen

	policies []Policy

	crls    crlCache
	signers ocspSigners
	serials sshSerials
}

// issuer is an Issuer ready for use.
type issuer struct {
	Issuer
	cert   *x509.Certificate   // nil for the SSH roles
	root   *issuer             // that signed cert; a root's own; nil for the SSH roles
	cross  []*x509.Certificate // of a root's key by other roots, not revoked
	pub    crypto.PublicKey
	signer crypto.Signer // nil: the key is not on this machine
}

// keyPurpose binds a sealed CA key to its use.
const keyPurpose = "ca.key"

// Open returns the authority that [Init] made in this store. It fails with
// NotFound if there is none.
func Open(ctx context.Context, cfg Config, store Store) (*Authority, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg.withDefaults(), store: store}
	if err := a.Reload(ctx); err != nil {
		return nil, err
	}
	a.cfg.Name = a.root.Subject.Organization[0]
	if country := a.root.Subject.Country; len(country) > 0 {
		a.cfg.Country = country[0]
	}
	if alg := algorithmOf(a.root.PublicKey); cfg.Algorithm == "" && alg.valid() {
		a.cfg.Algorithm = alg
	}
	return a, nil
}

// Reload reads the issuers, the URL and the profiles again, to learn of an intermediate that
// another process made or revoked, or of a key that it removed. A server calls it
// whenever the store's Generation has changed.
func (a *Authority) Reload(ctx context.Context) error {
	list, err := a.store.Issuers(ctx)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return postern.Errorf(postern.NotFound, "there is no certificate authority here yet").
			WithHint("create the certificate authority")
	}
	issuers := make([]*issuer, 0, len(list))
	for _, i := range list {
		iss, err := a.open(i)
		if err != nil {
			return err
		}
		issuers = append(issuers, iss)
	}
	if err := a.adopt(ctx, issuers); err != nil {
		return err
	}
	root := newestOf(issuers, Root, a.now())
	if root == nil || len(root.cert.Subject.Organization) == 0 {
		return postern.Errorf(postern.Internal, "the store holds CAs but no root that Postern made")
	}
	url, chosen, err := a.readURL(ctx)
	if err != nil {
		return err
	}
	policies, err := a.readPolicies(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issuers, a.root, a.url, a.chosen, a.policies = issuers, root.cert, url, chosen, policies
	return nil
}

// open parses an issuer and, if its key is sealed or in an HSM, makes it ready to
// sign.
func (a *Authority) open(i Issuer) (*issuer, error) {
	iss := &issuer{Issuer: i}
	var err error
	if iss.pub, err = x509.ParsePKIXPublicKey(i.PublicKey); err != nil {
		return nil, postern.Errorf(postern.Internal, "CA %s: public key: %w", i.ID, err)
	}
	if i.Certificate != nil {
		if iss.cert, err = x509.ParseCertificate(i.Certificate); err != nil {
			return nil, postern.Errorf(postern.Internal, "CA %s: certificate: %w", i.ID, err)
		}
	}
	switch {
	case i.Key != nil:
		der, err := a.store.Unseal(keyPurpose, i.ID, i.Key)
		if err != nil {
			return nil, postern.Errorf(postern.Internal, "CA %s: its key does not open: %w", i.ID, err)
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, postern.Errorf(postern.Internal, "CA %s: its key is damaged", i.ID)
		}
		iss.signer = key.(crypto.Signer)
	case i.KeyURI != "" && a.cfg.Keys != nil:
		if iss.signer, err = a.cfg.Keys.OpenKey(i.KeyURI, iss.pub); err != nil {
			return nil, postern.Errorf(postern.Internal, "CA %s: key %s: %w", i.ID, i.KeyURI, err)
		}
	}
	if iss.signer != nil && !samePublic(iss.signer.Public(), iss.pub) {
		return nil, postern.Errorf(postern.Internal, "CA %s: its private key does not belong to its public key", i.ID)
	}
	return iss, nil
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// ended says how an issuer's time has ended, or returns "" for one that is valid.
func (i *issuer) ended(now time.Time) string {
	switch {
	case !i.Revoked.IsZero():
		return "was revoked"
	case !i.Retired.IsZero():
		return "was retired"
	case i.cert != nil && !now.Before(i.cert.NotAfter):
		return "has expired"
	}
	return ""
}

// newest returns the newest issuer of a role that is valid or, if none is, the
// newest; nil if there is none. An SSH CA that does not sign yet is passed over.
func (a *Authority) newest(role Role) *issuer { return newestOf(a.list(), role, a.now()) }

func newestOf(list []*issuer, role Role, now time.Time) *issuer {
	var last *issuer
	for _, i := range slices.Backward(list) {
		switch {
		case i.Role != role || i.waits(now):
		case i.ended(now) == "":
			return i
		case last == nil:
			last = i
		}
	}
	return last
}

// signing returns the newest issuer of a role that is valid, or an Unavailable
// error if its key is not on this machine.
func (a *Authority) signing(role Role) (*issuer, error) {
	i := a.newest(role)
	if i == nil {
		return nil, postern.Errorf(postern.NotFound, "there is no %s CA", role)
	}
	if end := i.ended(a.now()); end != "" {
		return nil, endedError(i, end)
	}
	if i.signer == nil {
		return nil, postern.Errorf(postern.Unavailable, "the key of the %s CA is not on this machine", i.ID)
	}
	return i, nil
}

func endedError(i *issuer, end string) error {
	return postern.Errorf(postern.Unavailable, "the %s CA %s", i.ID, end).WithHint("make the next %s intermediate",
		i.Role)
}

// issuer returns the issuer of an ID, after a look at the store if need be.
func (a *Authority) issuer(ctx context.Context, id string) (*issuer, error) {
	for range 2 {
		for _, i := range a.list() {
			if i.ID == id {
				return i, nil
			}
		}
		if err := a.Reload(ctx); err != nil {
			return nil, err
		}
	}
	return nil, postern.Errorf(postern.NotFound, "there is no CA %q", id)
}

func (a *Authority) list() []*issuer {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.issuers
}

// Issuers returns the CAs, oldest first, without their keys.
func (a *Authority) Issuers() []Issuer {
	var list []Issuer
	for _, i := range a.list() {
		pub := i.Issuer
		pub.Key = nil
		list = append(list, pub)
	}
	return list
}

// HasKey reports whether the key of the CA of that ID is on this machine, or in an
// HSM, which may be unavailable.
func (a *Authority) HasKey(id string) bool {
	for _, i := range a.list() {
		if i.ID == id {
			return i.signer != nil
		}
	}
	return false
}

// CheckKey returns an Unavailable error unless the key of the CA of that ID can be
// used now. It does not use it.
func (a *Authority) CheckKey(ctx context.Context, id string) error {
	i, err := a.issuer(ctx, id)
	if err != nil {
		return err
	}
	if i.signer == nil {
		return postern.Errorf(postern.Unavailable, "the key of the %s CA is not on this machine", i.ID)
	}
	if hsm, ok := i.signer.(interface{ Check() error }); ok {
		return hsm.Check()
	}
	return nil
}

// Name returns the organisation's name.
func (a *Authority) Name() string { return a.cfg.Name }

// Root returns the newest root certificate that is valid. Others trust all of
// [Authority.Roots].
func (a *Authority) Root() *x509.Certificate {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.root
}

// Chain returns the role's intermediate that issues now, or issued last, and what is shown
// with it: certificates of its root's key by other roots.
func (a *Authority) Chain(role Role) []*x509.Certificate {
	i := a.newest(role)
	if i == nil || i.cert == nil {
		return nil
	}
	return a.chain(i)
}

// Intermediates returns every intermediate of a role, oldest first, also those
// that were revoked or have expired: certificates of all of them may be shown.
func (a *Authority) Intermediates(role Role) []*x509.Certificate {
	var list []*x509.Certificate
	for _, i := range a.list() {
		if i.Role == role && i.cert != nil {
			list = append(list, i.cert)
		}
	}
	return list
}

// Trusted returns the intermediates of a role that are valid and whose root was not
// retired, oldest first: the last one issues.
func (a *Authority) Trusted(role Role) []*x509.Certificate {
	var list []*x509.Certificate
	now := a.now()
	for _, i := range a.list() {
		if i.Role == role && i.cert != nil && i.ended(now) == "" {
			list = append(list, i.cert)
		}
	}
	return list
}

// SSHCA returns the public key of the newest SSH CA of a role, and all that were not
// retired, oldest first: sshd and known_hosts should trust all.
func (a *Authority) SSHCA(role Role) (newest ssh.PublicKey, all []ssh.PublicKey, err error) {
	for _, i := range a.list() {
		if i.Role != role || i.cert != nil || !i.Retired.IsZero() {
			continue
		}
		if newest, err = ssh.NewPublicKey(i.pub); err != nil {
			return nil, nil, postern.Errorf(postern.Internal, "CA %s: %w", i.ID, err)
		}
		all = append(all, newest)
	}
	if newest == nil {
		return nil, nil, postern.Errorf(postern.NotFound, "there is no %s CA", role)
	}
	return newest, all, nil
}
