package front

import (
	"context"
	"crypto/tls"
	"maps"
	"net/http"
	"net/netip"
	"time"

	"github.com/postern-project/postern/gate"
)

// inquiry is one request before one guard: what the guard looks at, kept from
// the handlers that change the request later, so that it can be decided about again.
type inquiry struct {
	site    *siteGuard
	conn    *conn
	tls     *tls.ConnectionState // nil over plain HTTP
	address netip.Addr
	request *gate.Request // nil if a certificate is all that the guard reads
}

func inquire(r *http.Request, s *siteGuard) inquiry {
	q := inquiry{site: s, conn: connOf(r), tls: r.TLS, address: addressOf(r)}
	if s.Moving() || s.Anyone() {
		q.request = newRequest(r, q.address)
	}
	return q
}

// finding is what was decided, and the certificate and its standing as far as it
// came to them.
type finding struct {
	worth    *worth
	standing *standing
	reason   gate.Reason
}

// decide says whether the guard opens, at a moment.
func (q *inquiry) decide(ctx context.Context, l *live, now time.Time) finding {
	s := q.site
	if s.Anyone() {
		if s.Decide(&gate.Subject{Request: q.at(now)}) != gate.OK {
			return finding{reason: gate.Closed}
		}
		return finding{}
	}
	f := finding{worth: q.conn.worth(q.tls.PeerCertificates, s.trust, l, now)}
	claim := f.worth.claim
	if claim == nil {
		f.reason = f.worth.reason
		return f
	}
	f.standing = claim.of(ctx, l)
	switch {
	case !l.fresh(now):
		f.reason = gate.Away
	case f.standing.reason != gate.OK:
		f.reason = f.standing.reason
	case s.Moving():
		f.reason = s.Decide(&gate.Subject{Verified: claim.verified, Holder: f.standing.holder, Request: q.at(now)})
	default:
		f.reason = f.standing.decided(s.Guard, claim.verified)
	}
	return f
}

// at returns the request as of a moment.
func (q *inquiry) at(now time.Time) *gate.Request {
	r := *q.request
	r.Time = now
	return &r
}

// newRequest returns what rules may read of a request, but for the time.
func newRequest(r *http.Request, address netip.Addr) *gate.Request {
	return &gate.Request{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, URI: r.RequestURI, Host: r.Host, Proto: r.Proto,
		Header: maps.Clone(r.Header), Address: address, TLS: r.TLS,
	}
}
