package gate

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"time"
)

// DefaultDepth is how many CAs may stand between a client's certificate and
// nothing: the issuing one and two above it.
const DefaultDepth = 3

// maxShown bounds how many certificates of a client are looked at; TLS itself
// bounds their bytes.
const maxShown = 10

// Trust is a set of trusted client CAs. Each certificate in it is an anchor,
// whether it signed itself or not. It is safe for concurrent use once made.
type Trust struct {
	own     []*x509.Certificate
	others  []*x509.Certificate
	anchors *x509.CertPool
	crls    *RevocationLists
}

// NewTrust returns the set of Postern's own client CAs and of other people's;
// either may be empty. Lists, which may be nil, say which certificates of other people's
// CAs are revoked.
func NewTrust(own, others []*x509.Certificate, lists *RevocationLists) *Trust {
	t := &Trust{own: own, others: others, anchors: x509.NewCertPool(), crls: lists}
	for _, c := range own {
		t.anchors.AddCert(readable(c))
	}
	for _, c := range others {
		t.anchors.AddCert(readable(c))
	}
	return t
}

// Anchors returns the pool of trusted CAs, whose names a TLS server hints to
// clients.
func (t *Trust) Anchors() *x509.CertPool { return t.anchors }

// Verified is a client certificate that chains to a trusted CA, is meant for
// clients and is in its time.
type Verified struct {
	Chain []*x509.Certificate // from the client's certificate to the trusted CA
	Own   bool                // issued by Postern's own CA
	Until time.Time           // when the first certificate of the chain, or revocation list for it, ends
	Facts []*Certificate      // what each of Chain says
}

// Leaf returns what the client's certificate says.
func (v *Verified) Leaf() *Certificate { return v.Facts[0] }

// Depth returns how many CAs stand above the client's certificate.
func (v *Verified) Depth() int { return len(v.Chain) - 1 }

// Verify judges the certificates that a client showed, its own first, at a
// moment. Who holds the certificate and whether it, or Postern's own CA that issued it, was
// revoked is not its concern; see [Registry].
func (t *Trust) Verify(shown []*x509.Certificate, now time.Time) (*Verified, Reason) {
	switch {
	case len(shown) == 0:
		return nil, NoneShown
	case len(shown) > maxShown:
		return nil, Unusable
	}
	leaf := shown[0]
	between := x509.NewCertPool()
	for _, c := range shown[1:] {
		between.AddCert(readable(c))
	}
	chains, reason := t.chains(leaf, between, now)
	if reason != OK {
		return nil, reason
	}
	chains = slices.DeleteFunc(chains, func(c []*x509.Certificate) bool { return !withinConstraints(c) })
	if len(chains) == 0 {
		return nil, Constrained
	}
	chain := shortest(chains)
	switch {
	case !forClients(leaf):
		return nil, WrongUsage
	case weak(chain):
		return nil, Weak
	}
	v := &Verified{Chain: chain, Own: contains(t.own, chain[len(chain)-1]), Until: ends(chain)}
	for _, c := range chain {
		facts, err := ReadCertificate(c)
		if err != nil {
			return nil, Unusable
		}
		v.Facts = append(v.Facts, facts)
	}
	if !v.Own && t.crls != nil {
		if v.Until, reason = t.crls.check(chain, now, v.Until); reason != OK {
			return nil, reason
		}
	}
	return v, OK
}

// readable returns a CA such that name constraints which crypto/x509 does not
// know do not spoil it: withinConstraints holds them.
func readable(c *x509.Certificate) *x509.Certificate {
	known := func(id asn1.ObjectIdentifier) bool { return id.Equal(oidConstraints) }
	if !slices.ContainsFunc(c.UnhandledCriticalExtensions, known) {
		return c
	}
	r := *c
	r.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(c.UnhandledCriticalExtensions), known)
	return &r
}

// chains builds the chains. A certificate that is out of its time but from
// nowhere is from another CA, so a failed time is asked about again.
func (t *Trust) chains(leaf *x509.Certificate, between *x509.CertPool, now time.Time) ([][]*x509.Certificate, Reason) {
	opts := x509.VerifyOptions{
		Roots:         t.anchors,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		opts.CurrentTime = leaf.NotAfter
		if _, err := leaf.Verify(opts); isUnknownAuthority(err) {
			return nil, AnotherCA
		}
		if now.Before(leaf.NotBefore) {
			return nil, NotYetValid
		}
		return nil, Expired
	}
	chains, err := leaf.Verify(opts)
	if err == nil {
		return chains, OK
	}
	return nil, reasonOf(err)
}

func isUnknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

func reasonOf(err error) Reason {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch invalid.Reason {
		case x509.Expired:
			return Expired
		case x509.IncompatibleUsage, x509.NoValidChains:
			return WrongUsage
		case x509.TooManyIntermediates:
			return TooDeep
		case x509.NotAuthorizedToSign:
			return AnotherCA
		case x509.CANotAuthorizedForThisName, x509.UnconstrainedName, x509.NameConstraintsWithoutSANs:
			return Constrained
		}
		return Unusable
	}
	if isUnknownAuthority(err) {
		return AnotherCA
	}
	return Unusable
}

func shortest(chains [][]*x509.Certificate) []*x509.Certificate {
	best := chains[0]
	for _, c := range chains[1:] {
		if len(c) < len(best) {
			best = c
		}
	}
	return best
}

func ends(chain []*x509.Certificate) time.Time {
	until := chain[0].NotAfter
	for _, c := range chain[1:] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return until
}

func contains(set []*x509.Certificate, c *x509.Certificate) bool {
	for _, have := range set {
		if have.Equal(c) {
			return true
		}
	}
	return false
}

// forClients holds what chain building does not: no CA acts as a client, and
// TLS needs a key that may sign.
func forClients(leaf *x509.Certificate) bool {
	return !leaf.IsCA && (leaf.KeyUsage == 0 || leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0)
}

// weak reports whether a key in the chain is too small. Signatures with SHA-1
// and MD5 do not get this far: chain building refuses them.
func weak(chain []*x509.Certificate) bool {
	for _, c := range chain {
		switch k := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if k.N.BitLen() < 2048 {
				return true
			}
		case *ecdsa.PublicKey:
			if k.Curve.Params().BitSize < 256 {
				return true
			}
		case ed25519.PublicKey:
		default:
			return true
		}
	}
	return false
}
