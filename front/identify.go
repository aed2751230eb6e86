package front

import (
	"crypto/x509"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/gate"
)

// Identify returns who a request comes from: the holder of the certificate of
// Postern's own CA that its connection showed, if both count at this moment,
// and the certificate's serial number. It is for services, which open what
// they open by themselves; a guard's rules have no say.
func Identify(r *http.Request) (who postern.Person, serial string, ok bool) {
	s := accountStatusOf(r)
	if s == nil || s.reason != gate.OK {
		return postern.Person{}, "", false
	}
	return s.holder.Person, s.identity.serial, true
}

// Suspended returns the person of a request that Identify refuses because they are
// suspended, and whether that is why: it is for a page that says so.
func Suspended(r *http.Request) (person string, ok bool) {
	s := accountStatusOf(r)
	if s == nil || s.reason != gate.Suspended || s.holder.Status != postern.PersonSuspended {
		return "", false
	}
	return s.holder.Name, true
}

// Disconnect ends the connection of a request at once, also while it is read or written.
func Disconnect(r *http.Request) { connOf(r).cut() }

// Unavailable reports whether Identify does not say who a request comes from because
// whether their certificate is valid is not known at the moment.
func Unavailable(r *http.Request) bool {
	s := accountStatusOf(r)
	return s != nil && s.reason == gate.Unavailable
}

// Certificate returns the client certificate of Postern's own CA that a request's
// connection showed, and the CA that issued it, if it verifies at this moment: also one
// that is no person's, as a host's. Whether it was revoked, and what it permits, is for
// the service to find out.
func Certificate(r *http.Request) (leaf, issuer *x509.Certificate, ok bool) {
	cert := ownCertificate(r, current())
	if cert == nil || len(cert.verified.Chain) < 2 {
		return nil, nil, false
	}
	return cert.verified.Chain[0], cert.verified.Chain[1], true
}

// accountStatusOf returns the status of the certificate of Postern's own CA that a
// request's connection showed, as of this moment; nil if there is none.
func accountStatusOf(r *http.Request) *accountStatus {
	l := current()
	cert := ownCertificate(r, l)
	switch {
	case cert == nil:
		return nil
	case !l.fresh(time.Now()):
		return &accountStatus{reason: gate.Unavailable}
	}
	return cert.of(r.Context(), l)
}

// ownCertificate returns the certificate of Postern's own CA that a request's connection
// showed, if it verifies.
func ownCertificate(r *http.Request, l *live) *verifiedCertificate {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || misdirected(r) {
		return nil
	}
	t, err := l.ownTrust()
	if err != nil {
		return nil
	}
	cert := connOf(r).verdict(r.TLS.PeerCertificates, t, l, time.Now()).cert
	if cert == nil || !cert.verified.Own {
		return nil
	}
	return cert
}

// Address returns the client's address: that of its connection, or what a
// trusted proxy says.
func Address(r *http.Request) netip.Addr { return addressOf(r) }

// own is Postern's own set of client CAs, loaded when it is first needed.
type own struct {
	mu    sync.Mutex // held to change it
	trust atomic.Pointer[trust]
}

func (l *live) ownTrust() (*trust, error) {
	if t := l.own.trust.Load(); t != nil {
		return t, nil
	}
	l.own.mu.Lock()
	defer l.own.mu.Unlock()
	t, err := loadTrust(l, nil, nil)
	if err == nil {
		l.own.trust.Store(t)
	}
	return t, err
}

// forget has the set loaded again.
func (o *own) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trust.Store(nil)
}
