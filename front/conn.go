package front

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern/gate"
)

// conn is the record of one connection: the verdict of each set of CAs on its
// certificates.
type conn struct {
	net        net.Conn   // nil where a connection cannot remember
	examined   bool       // that the handshake's end will be, see Unreadable
	unreadable *clientKey // no certificate was asked for, since this client's could not be read; nil otherwise
	mu         sync.Mutex
	known      []*verdict
}

// verdict is that of one set of CAs on one connection's certificates. Only
// passed and recorded change.
type verdict struct {
	trust  *trust
	read   *readTrust           // the lists by which they were judged
	cert   *verifiedCertificate // nil: they do not verify
	reason gate.Reason          // why not
	passed atomic.Bool          // that a request passed was noted

	recorded atomic.Bool // that is on the timeline
}

type connKey struct{}

// withConn is a http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, &conn{net: c})
}

// connOf returns what is remembered of the request's connection. Where a
// connection cannot remember, each request starts anew.
func connOf(r *http.Request) *conn {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c
	}
	return new(conn)
}

// verdict returns t's verdict on the certificates that the connection showed,
// now.
func (c *conn) verdict(shown []*x509.Certificate, t *trust, l *live, now time.Time) *verdict {
	read := t.now(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.known, func(w *verdict) bool { return w.trust == t })
	if at >= 0 {
		if w := c.known[at]; w.cert != nil && now.Before(w.cert.verified.Until) && w.read == read {
			return w
		}
	}
	w := &verdict{trust: t, read: read}
	w.cert, w.reason = l.verifiedCertificates.verify(t, read, shown, now)
	if w.reason == gate.NoneShown && c.unreadable != nil {
		w.reason = gate.Unreadable
	}
	if at < 0 {
		c.known = append(c.known, w)
		return w
	}
	w.passed.Store(c.known[at].passed.Load())
	w.recorded.Store(c.known[at].recorded.Load())
	c.known[at] = w
	return w
}

// cut ends the connection at once, also while it is read or written.
func (c *conn) cut() {
	if c.net == nil {
		return
	}
	raw := c.net
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn() // TLS would first send close_notify, to a client that may not read
	}
	_ = raw.Close()
}

// verifiedCertificate is a certificate that verifies. Connections that show the same one share it.
type verifiedCertificate struct {
	verified *gate.Verified
	status   atomic.Pointer[accountStatus]
}

// accountStatus is who holds a certificate and whether it is valid for the store,
// at one generation.
type accountStatus struct {
	generation int64
	holder     *gate.Holder
	reason     gate.Reason
	identity   *identity // nil unless it is valid

	mu        sync.RWMutex
	decisions map[*gate.Guard]gate.Reason
}

// decided returns the decision of a guard whose decision is the same for every request
// while this is the account's status.
func (s *accountStatus) decided(g *gate.Guard, v *gate.Verified) gate.Reason {
	s.mu.RLock()
	reason, ok := s.decisions[g]
	s.mu.RUnlock()
	if ok {
		return reason
	}
	reason = g.DecideCertificate(&gate.Subject{Verified: v, Holder: s.holder, Request: new(gate.Request)})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.decisions == nil || len(s.decisions) >= maxDecisions {
		s.decisions = make(map[*gate.Guard]gate.Reason)
	}
	s.decisions[g] = reason
	return reason
}

// maxDecisions bounds what an accountStatus remembers; guards of configurations
// that are gone are forgotten that way.
const maxDecisions = 64

// of asks the store, again only when it has changed since. What could
// not be asked is not remembered.
func (c *verifiedCertificate) of(ctx context.Context, l *live) *accountStatus {
	generation := l.generation.Load()
	if s := c.status.Load(); s != nil && s.generation == generation {
		return s
	}
	s := &accountStatus{generation: generation}
	s.holder, s.reason = gate.Hold(ctx, c.verified, l.registry())
	if s.reason == gate.OK {
		s.identity = newIdentity(c.verified, s.holder)
	}
	if s.reason != gate.Unavailable {
		c.status.Store(s)
	}
	return s
}

// verifiedCertificates caches verified certificates, so that a returning client on
// another connection costs one hash.
type verifiedCertificates struct {
	mu   sync.Mutex
	good map[verifiedKey]*verifiedCertificate
}

type verifiedKey struct{ trust, shown [sha256.Size]byte }

const maxVerified = 4096

// verify judges the certificates against t. Only what is good is remembered, and where
// revocation lists of other CAs have a say, nothing is.
func (c *verifiedCertificates) verify(t *trust, read *readTrust, shown []*x509.Certificate,
	now time.Time,
) (*verifiedCertificate, gate.Reason) {
	if len(shown) == 0 || len(t.lists) > 0 {
		return newVerifiedCertificate(read.Verify(shown, now))
	}
	key := verifiedKey{trust: t.id, shown: sumOf(shown)}
	c.mu.Lock()
	have, ok := c.good[key]
	c.mu.Unlock()
	if ok && now.Before(have.verified.Until) && !now.Before(have.verified.Chain[0].NotBefore) {
		return have, gate.OK
	}
	made, reason := newVerifiedCertificate(read.Verify(shown, now))
	if made != nil {
		c.keep(key, made)
	}
	return made, reason
}

func newVerifiedCertificate(v *gate.Verified, reason gate.Reason) (*verifiedCertificate, gate.Reason) {
	if reason != gate.OK {
		return nil, reason
	}
	return &verifiedCertificate{verified: v}, gate.OK
}

func (c *verifiedCertificates) keep(key verifiedKey, made *verifiedCertificate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil {
		c.good = make(map[verifiedKey]*verifiedCertificate)
	}
	for k := range c.good {
		if len(c.good) < maxVerified {
			break
		}
		delete(c.good, k)
	}
	c.good[key] = made
}

func sumOf(shown []*x509.Certificate) [sha256.Size]byte {
	h := sha256.New()
	for _, c := range shown {
		h.Write(c.Raw)
	}
	var out [sha256.Size]byte
	h.Sum(out[:0])
	return out
}
