package front

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern/gate"
)

// conn is what is remembered of one TLS connection: what its certificates are
// worth to each set of CAs.
type conn struct {
	mu    sync.Mutex
	known []*worth
}

// worth is what one connection's certificates are worth to one set of CAs.
type worth struct {
	trust  *trust
	read   *readTrust  // the lists by which they were judged
	claim  *claim      // nil: they do not verify
	reason gate.Reason // why not
	passed atomic.Bool // a first passage was noted
}

type connKey struct{}

// withConn is a http.Server.ConnContext.
func withConn(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, new(conn))
}

// connOf returns what is remembered of the request's connection. Where a
// connection cannot remember, each request starts anew.
func connOf(r *http.Request) *conn {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c
	}
	return new(conn)
}

// worth returns what the certificates that r's connection showed are worth to
// t, now.
func (c *conn) worth(r *http.Request, t *trust, l *live, now time.Time) *worth {
	read := t.now(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	var w *worth
	for _, have := range c.known {
		if have.trust == t {
			w = have
		}
	}
	switch {
	case w == nil:
		w = &worth{trust: t}
		c.known = append(c.known, w)
	case w.claim != nil && now.Before(w.claim.verified.Until) && w.read == read:
		return w
	}
	w.read = read
	w.claim, w.reason = l.claims.verify(t, read, r.TLS.PeerCertificates, now)
	return w
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
