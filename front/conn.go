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

// conn is what is remembered of one connection: what its certificates are
// worth to each set of CAs.
type conn struct {
	net   net.Conn // nil where a connection cannot remember
	mu    sync.Mutex
	known []*worth
}

// worth is what one connection's certificates are worth to one set of CAs. Only
// passed changes.
type worth struct {
	trust  *trust
	read   *readTrust  // the lists by which they were judged
	claim  *claim      // nil: they do not verify
	reason gate.Reason // why not
	passed atomic.Bool // a first passage was noted
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

// worth returns what the certificates that the connection showed are worth to
// t, now.
func (c *conn) worth(shown []*x509.Certificate, t *trust, l *live, now time.Time) *worth {
	read := t.now(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.known, func(w *worth) bool { return w.trust == t })
	if at >= 0 {
		if w := c.known[at]; w.claim != nil && now.Before(w.claim.verified.Until) && w.read == read {
			return w
		}
	}
	w := &worth{trust: t, read: read}
	w.claim, w.reason = l.claims.verify(t, read, shown, now)
	if at < 0 {
		c.known = append(c.known, w)
		return w
	}
	w.passed.Store(c.known[at].passed.Load())
	c.known[at] = w
	return w
}

// cut ends the connection at once, whoever reads and writes there.
func (c *conn) cut() {
	if c.net == nil {
		return
	}
	raw := c.net
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn() // TLS would first say good-bye, to somebody who may not listen
	}
	_ = raw.Close()
}

// claim is a certificate that verifies. Connections that show the same one share it.
type claim struct {
	verified *gate.Verified
	standing atomic.Pointer[standing]
}

// standing is who holds a certificate and whether it counts, as the store had it
// at one generation.
type standing struct {
	generation int64
	holder     *gate.Holder
	reason     gate.Reason
	identity   *identity // nil unless it counts

	mu        sync.RWMutex
	decisions map[*gate.Guard]gate.Reason
}

// decided returns what a guard says whose answer is the same for every request
// as long as this is the certificate's standing.
func (s *standing) decided(g *gate.Guard, v *gate.Verified) gate.Reason {
	s.mu.RLock()
	reason, ok := s.decisions[g]
	s.mu.RUnlock()
	if ok {
		return reason
	}
	reason = g.Decide(&gate.Subject{Verified: v, Holder: s.holder, Request: new(gate.Request)})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.decisions == nil || len(s.decisions) >= maxDecisions {
		s.decisions = make(map[*gate.Guard]gate.Reason)
	}
	s.decisions[g] = reason
	return reason
}

// maxDecisions bounds what one standing remembers; guards of configurations
// that are gone are forgotten that way.
const maxDecisions = 64

// standing asks the store, again only when it has changed since. What could
// not be asked is not remembered.
func (c *claim) of(ctx context.Context, l *live) *standing {
	generation := l.generation.Load()
	if s := c.standing.Load(); s != nil && s.generation == generation {
		return s
	}
	s := &standing{generation: generation}
	s.holder, s.reason = gate.Hold(ctx, c.verified, l.registry())
	if s.reason == gate.OK {
		s.identity = newIdentity(c.verified, s.holder)
	}
	if s.reason != gate.Away {
		c.standing.Store(s)
	}
	return s
}

// claims remembers certificates that were found good, so that a client that
// comes back on another connection costs one hash.
type claims struct {
	mu   sync.Mutex
	good map[claimKey]*claim
}

type claimKey struct{ trust, shown [sha256.Size]byte }

const maxClaims = 4096

// verify judges the certificates against t. Only what is good is remembered, and where
// revocation lists of other CAs have a say, nothing is.
func (c *claims) verify(t *trust, read *readTrust, shown []*x509.Certificate, now time.Time) (*claim, gate.Reason) {
	if len(shown) == 0 || len(t.lists) > 0 {
		return newClaim(read.Verify(shown, now))
	}
	key := claimKey{trust: t.id, shown: sumOf(shown)}
	c.mu.Lock()
	have, ok := c.good[key]
	c.mu.Unlock()
	if ok && now.Before(have.verified.Until) && !now.Before(have.verified.Chain[0].NotBefore) {
		return have, gate.OK
	}
	made, reason := newClaim(read.Verify(shown, now))
	if made != nil {
		c.keep(key, made)
	}
	return made, reason
}

func newClaim(v *gate.Verified, reason gate.Reason) (*claim, gate.Reason) {
	if reason != gate.OK {
		return nil, reason
	}
	return &claim{verified: v}, gate.OK
}

func (c *claims) keep(key claimKey, made *claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil {
		c.good = make(map[claimKey]*claim)
	}
	for k := range c.good {
		if len(c.good) < maxClaims {
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
