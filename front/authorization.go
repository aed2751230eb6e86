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

// authorizationRequest is one request before one guard: what the guard looks at,
// kept from the handlers that change the request later, so that it can be decided
// about again.
type authorizationRequest struct {
	site    *siteGuard
	conn    *conn
	tls     *tls.ConnectionState // nil over plain HTTP
	address netip.Addr
	request *gate.Request // nil if a certificate is all that the guard reads
}

func newAuthorizationRequest(r *http.Request, s *siteGuard) authorizationRequest {
	q := authorizationRequest{site: s, conn: connOf(r), tls: r.TLS, address: addressOf(r)}
	if s.Moving() || s.Anyone() {
		q.request = newRequest(r, q.address)
	}
	return q
}

// decision is what was decided, and the certificate and its account's status as far
// as it came to them.
type decision struct {
	verdict *verdict
	status  *accountStatus
	reason  gate.Reason
}

// decide says whether the guard lets the request pass, at a moment.
func (q *authorizationRequest) decide(ctx context.Context, l *live, now time.Time) decision {
	s := q.site
	if s.Anyone() {
		if s.Decide(&gate.Subject{Request: q.at(now)}) != gate.OK {
			return decision{reason: gate.Closed}
		}
		return decision{}
	}
	f := decision{verdict: q.conn.verdict(q.tls.PeerCertificates, s.trust, l, now)}
	cert := f.verdict.cert
	if cert == nil {
		f.reason = f.verdict.reason
		return f
	}
	f.status = cert.of(ctx, l)
	switch {
	case !l.fresh(now):
		f.reason = gate.Unavailable
	case f.status.reason != gate.OK:
		f.reason = f.status.reason
	case s.Moving():
		f.reason = s.Decide(&gate.Subject{Verified: cert.verified, Holder: f.status.holder, Request: q.at(now)})
	default:
		f.reason = f.status.decided(s.Guard, cert.verified)
	}
	return f
}

// at returns the request as of a moment.
func (q *authorizationRequest) at(now time.Time) *gate.Request {
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
