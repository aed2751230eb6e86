package front

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/postern-project/postern/gate"
)

// conn is what is remembered of one TLS connection: what its certificates are
// worth to each set of CAs, and who holds them.
type conn struct {
	mu    sync.Mutex
	known []*standing
}

// standing is what one connection's certificates are worth to one set of CAs.
type standing struct {
	trust      *trust
	verified   *gate.Verified
	reason     gate.Reason // why they are not verified
	holder     *gate.Holder
	held       gate.Reason // why the holder does not count
	generation int64       // of the store, when the holder was asked for
	asked      bool
	identity   *identity
	passed     bool // a first passage was noted
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

// standing returns what the certificates that r's connection showed are worth
// to t, now. The store is asked again only when it has changed.
func (c *conn) standing(r *http.Request, t *trust, l *live, now time.Time) standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.find(t)
	if s.verified == nil || !now.Before(s.verified.Until) {
		s.verified, s.reason = l.certs.verify(t, r.TLS.PeerCertificates, now)
		s.asked = false
	}
	if s.verified == nil {
		return *s
	}
	if g := l.generation.Load(); !s.asked || s.generation != g {
		s.generation = g
		s.holder, s.held = gate.Hold(r.Context(), s.verified, l.registry())
		s.asked = s.held != gate.Away
		s.identity = nil
	}
	if s.held == gate.OK && s.identity == nil {
		s.identity = newIdentity(s.verified, s.holder)
	}
	return *s
}

func (c *conn) find(t *trust) *standing {
	for _, s := range c.known {
		if s.trust == t {
			return s
		}
	}
	s := &standing{trust: t}
	c.known = append(c.known, s)
	return s
}

// first reports whether this is the first passage with these CAs on the
// connection.
func (c *conn) first(t *trust) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.find(t)
	was := s.passed
	s.passed = true
	return !was
}

// verifyCache remembers chains that were found good, so that a client that
// comes back on another connection costs one hash.
type verifyCache struct {
	mu   sync.Mutex
	good map[verifyKey]*gate.Verified
}

type verifyKey struct{ trust, shown [sha256.Size]byte }

const maxVerified = 4096

// verify judges the certificates against t. Only what is good is remembered, and where
// revocation lists of other CAs have a say, nothing is.
func (c *verifyCache) verify(t *trust, shown []*x509.Certificate, now time.Time) (*gate.Verified, gate.Reason) {
	if len(shown) == 0 || t.hasLists {
		return t.Verify(shown, now)
	}
	key := verifyKey{trust: t.id, shown: sumOf(shown)}
	c.mu.Lock()
	v, ok := c.good[key]
	c.mu.Unlock()
	if ok && now.Before(v.Until) && !now.Before(v.Chain[0].NotBefore) {
		return v, gate.OK
	}
	v, reason := t.Verify(shown, now)
	if reason == gate.OK {
		c.keep(key, v)
	}
	return v, reason
}

func (c *verifyCache) keep(key verifyKey, v *gate.Verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil {
		c.good = make(map[verifyKey]*gate.Verified)
	}
	for k := range c.good {
		if len(c.good) < maxVerified {
			break
		}
		delete(c.good, k)
	}
	c.good[key] = v
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
