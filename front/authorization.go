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

// authorizationRequest is one request and one guard that covers its path. It has a copy
// of what the guard reads, since handlers change the request later, so that it can be
// decided again.
type authorizationRequest struct {
	site    *siteGuard
	conn    *conn
	tls     *tls.ConnectionState // nil if no certificate could be shown for this site
	address netip.Addr
	request *gate.Request // nil if a certificate is all that the guard reads
	passed  passedBy
}

// passedBy is the kind of way by which a request passed. A client that passed by a
// certificate, and was named to the application, must continue to pass by it.
type passedBy int

const (
	notYet passedBy = iota
	byCertificate
	withoutOne
)

func newAuthorizationRequest(r *http.Request, s *siteGuard) authorizationRequest {
	q := authorizationRequest{site: s, conn: connOf(r), address: addressOf(r)}
	if r.TLS != nil && !s.Anyone() && !misdirected(r) {
		q.tls = r.TLS
	}
	if s.Moving() || s.HasOpen() || s.reads {
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
	by      passedBy
	at      time.Time
}

// decide decides whether the request passes the guard at a moment.
func (q *authorizationRequest) decide(ctx context.Context, l *live, now time.Time) decision {
	f := q.decideWays(ctx, l, now)
	if f.reason == gate.OK && q.site.audit && !l.writable() {
		f.reason = gate.Unrecorded
	}
	return f
}

// decideWays decides by the ways to pass. It tries the certificate first, so that the
// application gets the person's identity.
func (q *authorizationRequest) decideWays(ctx context.Context, l *live, now time.Time) decision {
	f := decision{reason: gate.Closed, at: now}
	if !q.site.Anyone() && q.passed != withoutOne {
		f = q.decideCertificate(ctx, l, now)
	}
	switch {
	case f.reason == gate.OK:
		f.by = byCertificate
	case q.passed != byCertificate && q.site.HasOpen() && q.site.Open(q.at(now)):
		return decision{by: withoutOne}
	}
	return f
}

// decideCertificate decides by the certificate that the connection showed.
func (q *authorizationRequest) decideCertificate(ctx context.Context, l *live, now time.Time) decision {
	if q.tls == nil {
		return decision{reason: gate.NoneShown}
	}
	s := q.site
	f := decision{verdict: q.conn.verdict(q.tls.PeerCertificates, s.trust, l, now), at: now}
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
		f.reason = s.DecideCertificate(&gate.Subject{
			Verified: cert.verified, Holder: f.status.holder,
			Request: q.at(now),
		})
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
