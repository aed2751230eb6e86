package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"golang.org/x/crypto/ssh"
)

// NewRoot makes the next root, and intermediates under it, which issue from now on. Both
// roots sign a certificate of the other's key, and chains hold these until one of the
// roots is retired: who trusts either root verifies what was issued under either. The new
// root has the constraints of the one before. oldKey is that one's key for this call; nil
// if it is on this machine. It fails with Conflict if there are two roots already.
func (a *Authority) NewRoot(ctx context.Context, oldKey crypto.Signer) (Issuer, error) {
	if err := a.Reload(ctx); err != nil {
		return Issuer{}, err
	}
	if roots := a.Roots(); len(roots) > 1 {
		return Issuer{}, postern.Errorf(postern.Conflict, "there are two roots already").
			WithHint("retire the older root first")
	}
	old, err := a.rootWith(oldKey)
	if err != nil {
		return Issuer{}, err
	}
	root, certs, cross, err := a.nextRoot(ctx, old)
	if err != nil {
		return Issuer{}, err
	}
	issuers := []Issuer{root.Issuer}
	for _, role := range []Role{Server, Client} {
		iss, cert, err := a.newIntermediate(ctx, root, role, a.nextID(role))
		if err != nil {
			return Issuer{}, err
		}
		issuers, certs = append(issuers, iss.Issuer), append(certs, cert)
	}
	var events []postern.Event
	for _, i := range issuers {
		events = append(events, createdEvent(i))
	}
	if err := a.store.AddRoot(ctx, issuers, certs, old.ID, cross, events...); err != nil {
		return Issuer{}, err
	}
	if err := a.Reload(ctx); err != nil {
		return Issuer{}, err
	}
	// Its first list, made while its key is surely here.
	_, err = a.CRL(ctx, root.ID)
	root.Issuer.Key = nil
	return root.Issuer, err
}

// nextRoot makes the root that follows old, and both cross-signed certificates: that of
// the new root's key is kept with it, that of the old one's key is returned (DER, nil for
// a root that has expired).
func (a *Authority) nextRoot(ctx context.Context, old *issuer) (
	root *issuer, certs []Certificate, cross []byte, err error,
) {
	id := a.nextID(Root)
	if root, err = a.newKey(ctx, Root, id, a.cfg.Algorithm); err != nil {
		return nil, nil, nil, err
	}
	tmpl := a.caTemplate(a.cfg.Name+" Root CA"+numberOf(id), a.cfg.RootValidity)
	constrainAs(tmpl, old.cert)
	if _, err := a.signCA(root, tmpl, root); err != nil || !a.now().Before(old.cert.NotAfter) {
		return root, nil, nil, err
	}
	for _, pair := range [][2]*issuer{{root, old}, {old, root}} {
		der, err := a.crossSign(pair[0], pair[1])
		if err != nil {
			return nil, nil, nil, err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, nil, postern.Errorf(postern.Internal, "the certificate just signed does not parse: %w",
				err)
		}
		certs = append(certs, a.entry(cert, pair[1].ID, ProfileCross))
		pair[0].Cross = append(slices.Clip(pair[0].Cross), der...)
	}
	return root, certs, old.Cross, nil
}

// crossSign certifies a root's key by another root (RFC 5280 section 3.2), as long as
// both are valid.
func (a *Authority) crossSign(subject, by *issuer) (der []byte, err error) {
	tmpl := &x509.Certificate{
		SerialNumber: newSerial(), RawSubject: subject.cert.RawSubject, SubjectKeyId: subject.cert.SubjectKeyId,
		NotBefore: subject.cert.NotBefore, NotAfter: subject.cert.NotAfter, KeyUsage: subject.cert.KeyUsage,
		BasicConstraintsValid: true, IsCA: true,
	}
	if by.cert.NotBefore.After(tmpl.NotBefore) {
		tmpl.NotBefore = by.cert.NotBefore
	}
	if by.cert.NotAfter.Before(tmpl.NotAfter) {
		tmpl.NotAfter = by.cert.NotAfter
	}
	constrainAs(tmpl, subject.cert)
	a.addURLs(tmpl, by.ID, false)
	if der, err = x509.CreateCertificate(rand.Reader, tmpl, by.cert, subject.pub, by.signer); err != nil {
		return nil, postern.Errorf(postern.CodeOf(err), "sign the key of %s by %s: %w", subject.ID, by.ID, err)
	}
	return der, nil
}

// constrainAs gives a certificate the name constraints of another.
func constrainAs(tmpl, cert *x509.Certificate) {
	tmpl.PermittedDNSDomainsCritical = cert.PermittedDNSDomainsCritical
	tmpl.PermittedDNSDomains = cert.PermittedDNSDomains
	tmpl.PermittedEmailAddresses = cert.PermittedEmailAddresses
	tmpl.PermittedIPRanges = cert.PermittedIPRanges
}

// nextID returns the ID of the role's next issuer: root-2.
func (a *Authority) nextID(role Role) string {
	number := 1
	for _, i := range a.list() {
		if i.Role == role {
			number++
		}
	}
	return fmt.Sprintf("%s-%d", role, number)
}

// adopt finds the root of each issuer, and the cross-signed certificates that are valid.
func (a *Authority) adopt(ctx context.Context, issuers []*issuer) error {
	for _, i := range issuers {
		for _, r := range issuers {
			if i.cert != nil && r.Role == Root && bytes.Equal(i.cert.RawIssuer, r.cert.RawSubject) {
				i.root = r
			}
		}
		if i.cert != nil && i.root == nil {
			return postern.Errorf(postern.Internal, "the store holds no root of the %s CA", i.ID)
		}
		list, err := x509.ParseCertificates(i.Cross)
		if err != nil {
			return postern.Errorf(postern.Internal, "CA %s: cross-signed certificates: %w", i.ID, err)
		}
		for _, c := range list {
			kept, err := a.store.Certificate(ctx, SerialString(c.SerialNumber))
			if err != nil {
				return err
			}
			if kept.Revoked.IsZero() {
				i.cross = append(i.cross, c)
			}
		}
	}
	return nil
}

// chain returns what is shown after a certificate that an issuer signed: its own
// certificate, and that of its root's key by each other root that is trusted.
func (a *Authority) chain(i *issuer) []*x509.Certificate {
	list := []*x509.Certificate{i.cert}
	now := a.now()
	if i.Role == Root || i.root.ended(now) != "" {
		return list
	}
	for _, c := range i.root.cross {
		for _, r := range a.list() {
			if r.Role == Root && r.ended(now) == "" && now.Before(c.NotAfter) &&
				bytes.Equal(c.RawIssuer, r.cert.RawSubject) {
				list = append(list, c)
			}
		}
	}
	return list
}

// Roots returns the root certificates that others are to trust, newest first.
func (a *Authority) Roots() (list []*x509.Certificate) {
	now := a.now()
	for _, i := range slices.Backward(a.list()) {
		if i.Role == Root && i.ended(now) == "" {
			list = append(list, i.cert)
		}
	}
	if list == nil {
		list = append(list, a.Root()) // it has expired, and there is no other
	}
	return list
}

// ChainFor returns what a server shows after a certificate, in DER; nil if no intermediate of
// this authority issued it.
func (a *Authority) ChainFor(leaf *x509.Certificate) (chain [][]byte) {
	for _, i := range a.list() {
		if i.cert == nil || i.Role == Root || !bytes.Equal(i.cert.SubjectKeyId, leaf.AuthorityKeyId) ||
			!bytes.Equal(i.cert.RawSubject, leaf.RawIssuer) {
			continue
		}
		for _, c := range a.chain(i) {
			chain = append(chain, c.Raw)
		}
		return chain
	}
	return nil
}

// RetireRequest says which CA is retired.
type RetireRequest struct {
	ID     string // of a root or SSH CA that another one has followed
	Revoke bool   // revoke the valid certificates that it issued, too
	By     postern.Actor
}

// Retire ends that others are told to trust a root or an SSH CA: it is not handed out any
// more, nor are certificates that lead to it, and it issues nothing. Its revocation lists
// are signed on, while its key is here. The KRL revokes the key of an SSH CA.
//
// It fails with Conflict if no other CA of its role issues, or while certificates are valid
// that it issued to others, unless they are revoked with it. Where another root has signed
// its key, that certificate is revoked; that root's key must be on this machine.
func (a *Authority) Retire(ctx context.Context, r RetireRequest) error {
	if err := a.Reload(ctx); err != nil {
		return err
	}
	i, err := a.issuer(ctx, r.ID)
	if err != nil {
		return err
	}
	if err := a.mayRetire(i); err != nil {
		return err
	}
	var serials []string
	for _, c := range i.cross {
		for _, by := range a.list() {
			if by.Role != Root || !bytes.Equal(by.cert.RawSubject, c.RawIssuer) || by.ended(a.now()) != "" {
				continue
			}
			if by.signer == nil {
				return postern.Errorf(postern.Unavailable, "the key of the root %s is not on this machine: "+
					"the list that revokes its certificate of %s cannot be signed", by.ID, i.ID).
					WithHint("restore the root's key, retire the CA, and remove the key again")
			}
			serials = append(serials, SerialString(c.SerialNumber))
		}
	}
	ids := []string{i.ID}
	for _, under := range a.list() {
		if under != i && under.root == i {
			ids = append(ids, under.ID)
		}
	}
	err = a.store.Retire(ctx, ids, serials, r.Revoke, a.now(), postern.Event{
		Kind: postern.EventCARetired, Outcome: postern.OK, Object: i.ID, Address: r.By.Address,
		Details: map[string]string{"role": string(i.Role)},
	})
	if err != nil {
		return err
	}
	return a.Reload(ctx)
}

// mayRetire fails unless another CA issues in an issuer's place.
func (a *Authority) mayRetire(i *issuer) error {
	switch {
	case i.Role != Root && i.Role != SSHUser && i.Role != SSHHost:
		return postern.Errorf(postern.Invalid, "%s is an intermediate: it is retired with its root, or revoked", i.ID)
	case !i.Retired.IsZero():
		return postern.Errorf(postern.Conflict, "%s was retired already", i.ID)
	}
	now, roles := a.now(), map[Role]bool{i.Role: true}
	if i.Role == Root {
		roles[Server], roles[Client] = true, true
	}
	var waiting *issuer
	for _, other := range a.list() {
		switch {
		case other == i || other.root == i || other.ended(now) != "":
		case !other.waits(now):
			delete(roles, other.Role)
		case other.Role == i.Role:
			waiting = other
		}
	}
	switch {
	case len(roles) > 0 && waiting != nil:
		return postern.Errorf(postern.Conflict, "%s issues in the place of %s only from %s on", waiting.ID, i.ID,
			waiting.Created.Add(SSHOverlap).UTC().Format(time.DateOnly)).
			WithHint("wait until hosts and clients have fetched its key")
	case len(roles) > 0:
		return postern.Errorf(postern.Conflict, "nothing would issue in the place of %s", i.ID).
			WithHint("make its successor first")
	}
	return nil
}

// Anchor is a CA that others are told to trust, or were: a root or an SSH CA.
type Anchor struct {
	ID           string    `json:"id"`
	Role         Role      `json:"role"`
	Status       string    `json:"status"` // "issues", "waits" until it does, "trusted", "expired" or "retired"
	Name         string    `json:"name"`   // subject, or the fingerprint of an SSH CA's key
	NotAfter     time.Time `json:"not_after,omitzero"`
	Key          bool      `json:"key_here"`          // its key is on this machine
	KeyURI       string    `json:"key_uri,omitempty"` // of the HSM that its key is in
	Certificates int       `json:"certificates"`      // valid ones of others that lead to it alone
}

// Anchors returns the roots and SSH CAs, oldest first.
func (a *Authority) Anchors(ctx context.Context) (list []Anchor, err error) {
	if err := a.Reload(ctx); err != nil {
		return nil, err
	}
	valid, err := a.store.Outstanding(ctx, a.now())
	if err != nil {
		return nil, err
	}
	for _, i := range a.list() {
		if i.Role == Server || i.Role == Client {
			continue
		}
		anchor := Anchor{
			ID: i.ID, Role: i.Role, Status: a.statusOf(i), Name: i.name(), Key: i.signer != nil, KeyURI: i.KeyURI,
		}
		if i.cert != nil {
			anchor.NotAfter = i.cert.NotAfter
		}
		for _, id := range a.issuersUnder(i) {
			anchor.Certificates += valid[id]
		}
		list = append(list, anchor)
	}
	return list, nil
}

// name returns an issuer's subject, or the fingerprint of an SSH CA's key.
func (i *issuer) name() string {
	if i.cert != nil {
		return SubjectString(i.cert.RawSubject)
	}
	pub, err := ssh.NewPublicKey(i.pub)
	if err != nil {
		return ""
	}
	return ssh.FingerprintSHA256(pub)
}

func (a *Authority) statusOf(i *issuer) string {
	switch now := a.now(); {
	case !i.Retired.IsZero():
		return "retired"
	case i.ended(now) != "":
		return "expired"
	case a.newest(i.Role) == i:
		return "issues"
	case i.waits(now):
		return "waits"
	}
	return "trusted"
}

// issuersUnder returns the IDs of an anchor and of the intermediates under it.
func (a *Authority) issuersUnder(anchor *issuer) []string {
	ids := []string{anchor.ID}
	for _, i := range a.list() {
		if i.root == anchor && i != anchor {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// Holder is a valid certificate, and the root or SSH CA that vouches for it.
type Holder struct {
	CA       string    `json:"ca"`
	Serial   string    `json:"serial"`
	Profile  Profile   `json:"profile"`
	For      string    `json:"for"`
	Person   string    `json:"person,omitempty"`
	NotAfter time.Time `json:"not_after"`
}

// Holders returns the valid certificates that lead to a root or SSH CA, or, for "", to any
// but those that issue now: what is left to renew before these are retired.
func (a *Authority) Holders(ctx context.Context, id string) (list []Holder, err error) {
	if err := a.Reload(ctx); err != nil {
		return nil, err
	}
	if id != "" {
		if _, err := a.issuer(ctx, id); err != nil {
			return nil, err
		}
	}
	for _, i := range a.list() {
		if i.Role == Server || i.Role == Client || id != "" && i.ID != id || id == "" && a.newest(i.Role) == i {
			continue
		}
		of := a.holders
		if i.Role != Root {
			of = a.sshHolders
		}
		held, err := of(ctx, i)
		if err != nil {
			return nil, err
		}
		list = append(list, held...)
	}
	return list, nil
}

func (a *Authority) holders(ctx context.Context, root *issuer) (list []Holder, err error) {
	certs, err := a.store.Certificates(ctx, Filter{Leaves: true, Valid: a.now(), Issuers: a.issuersUnder(root)})
	for _, c := range certs {
		list = append(list, Holder{root.ID, c.Serial, c.Profile, c.For(), c.Person, c.NotAfter})
	}
	return list, err
}

func (a *Authority) sshHolders(ctx context.Context, of *issuer) (list []Holder, err error) {
	certs, err := a.store.SSHCertificates(ctx, "")
	now := a.now()
	for _, c := range certs {
		if c.Issuer == of.ID && c.Revoked.IsZero() && now.Before(c.ValidBefore) {
			list = append(list, Holder{
				of.ID, fmt.Sprint(c.Serial), Profile(of.Role), c.KeyID, c.Person,
				c.ValidBefore,
			})
		}
	}
	return list, err
}
