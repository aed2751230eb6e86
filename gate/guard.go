package gate

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Registry looks up Postern's own certificates and people. Its answers are the store's
// current ones: an implementation does not cache them.
type Registry interface {
	// Certificate returns the credential with this serial number (lower-case
	// hex) and its holder. One that this issuer did not make is an error of code
	// postern.NotFound; one whose issuer was revoked is revoked, too.
	Certificate(ctx context.Context, serial string, issuer *x509.Certificate) (postern.Credential, postern.Person,
		error)
	// PersonByEmail returns the person with this address, or an error of code
	// postern.NotFound.
	PersonByEmail(ctx context.Context, email string) (postern.Person, error)
}

// Config is one guard: which paths it covers and who may pass, by any one of its
// ways. The first is the configuration's own; Or are the others.
type Config struct {
	Paths []string // see CompilePaths
	Way
	Or      []Way    // further ways; one that says nothing is an error
	Depth   int      // most CAs above the client's certificate; 0 means DefaultDepth
	Indexes []string // further names of a directory's index page
}

// Ways returns all the ways of the guard.
func (c Config) Ways() []Way { return append([]Way{c.Way}, c.Or...) }

// Validate reports whether the guard can be built.
func (c Config) Validate() error {
	_, err := New(c)
	return err
}

// Guard decides who may pass one set of paths. It is safe for concurrent use.
type Guard struct {
	Paths   Paths
	open    []way // those that ask for no certificate
	certify []way // those that do
	depth   int
	moving  bool
}

// New compiles a guard.
func New(c Config) (*Guard, error) {
	paths, err := CompilePaths(c.Paths, c.Indexes)
	if err != nil {
		return nil, err
	}
	if c.Depth < 0 || c.Depth > maxShown {
		return nil, postern.Errorf(postern.Invalid, "a depth is 1 to %d", maxShown)
	}
	if slices.ContainsFunc(c.Or, Way.empty) {
		return nil, postern.Errorf(postern.Invalid,
			"another way to pass says who, from where or how: an empty one would let all clients pass")
	}
	g := &Guard{Paths: paths, depth: cmp.Or(c.Depth, DefaultDepth)}
	for _, one := range c.Ways() {
		w, err := newWay(one)
		if err != nil {
			return nil, err
		}
		g.moving = g.moving || w.moving
		if w.anyone {
			g.open = append(g.open, w)
		} else {
			g.certify = append(g.certify, w)
		}
	}
	if g.Anyone() && c.Depth > 0 {
		return nil, postern.Errorf(postern.Invalid, "a guard that asks for no certificate has no depth")
	}
	return g, nil
}

func appendPerson(to []string, p string) ([]string, error) {
	if !strings.Contains(p, "@") {
		if !postern.ValidName(p) {
			return nil, postern.Errorf(postern.Invalid, "%q is neither a person's name nor an e-mail address", p)
		}
		return append(to, p), nil
	}
	email, err := postern.CleanEmail(p)
	return append(to, email), err
}

// Moving reports whether the guard's answer can change between two requests of
// one connection that show the same certificate, by other means than the
// store: a rule looks at the request or the clock.
func (g *Guard) Moving() bool { return g.moving }

// ByPath reports whether the guard looks at more of a path than its beginning,
// which a directory and the index page that it serves share.
func (g *Guard) ByPath() bool { return g.moving || len(g.Paths.patterns) > 0 }

// Anyone reports whether no way asks for a certificate. Then a Subject needs its
// Request alone.
func (g *Guard) Anyone() bool { return len(g.certify) == 0 }

// HasOpen reports whether a way asks for no certificate.
func (g *Guard) HasOpen() bool { return len(g.open) > 0 }

// Request is what a rule may read of a request.
type Request struct {
	Method, Path, Query, URI, Host, Proto string
	Header                                map[string][]string
	Address                               netip.Addr
	Time                                  time.Time
	TLS                                   *tls.ConnectionState
}

// Holder is the person behind a certificate. The zero Holder is a person who is not in
// the store.
type Holder struct{ postern.Person }

// Subject is what a guard decides about.
type Subject struct {
	Verified *Verified
	Holder   *Holder
	Request  *Request
}

// Hold returns the holder of a verified certificate and whether it is still valid.
// Postern's own must be known to the store; another CA's belongs to the person
// whose address it names, if it names one address only.
func Hold(ctx context.Context, v *Verified, reg Registry) (*Holder, Reason) {
	if v.Own {
		return holdOwn(ctx, v, reg)
	}
	emails := v.Leaf().Emails()
	if len(emails) != 1 {
		return &Holder{}, OK
	}
	p, err := reg.PersonByEmail(ctx, emails[0])
	switch {
	case postern.CodeOf(err) == postern.NotFound && err != nil:
		return &Holder{}, OK
	case err != nil:
		return nil, Unavailable
	case !p.Active():
		return &Holder{p}, Suspended
	}
	return &Holder{p}, OK
}

func holdOwn(ctx context.Context, v *Verified, reg Registry) (*Holder, Reason) {
	if len(v.Chain) < 2 {
		return nil, Unusable
	}
	c, p, err := reg.Certificate(ctx, v.Leaf().Serial, v.Chain[1])
	switch {
	case err != nil && postern.CodeOf(err) == postern.NotFound:
		return nil, Unknown
	case err != nil:
		return nil, Unavailable
	case c.Status == postern.CredentialRevoked:
		return &Holder{p}, Revoked
	case c.Status != postern.CredentialActive:
		return &Holder{p}, Disabled
	case !p.Active():
		return &Holder{p}, Suspended
	}
	return &Holder{p}, OK
}

// Decide reports whether the subject passes the guard by any way, or why not.
func (g *Guard) Decide(s *Subject) Reason {
	switch {
	case s != nil && g.Open(s.Request):
		return OK
	case g.Anyone() && s != nil && s.Request != nil:
		return RuleFailed
	}
	return g.DecideCertificate(s)
}

// Open reports whether the request passes by a way that asks for no certificate.
func (g *Guard) Open(r *Request) bool {
	if r == nil || len(g.open) == 0 {
		return false
	}
	s := &Subject{Request: r}
	return slices.ContainsFunc(g.open, func(w way) bool { return w.decide(s) == OK })
}

// DecideCertificate reports whether the subject passes by a way that asks for a
// certificate, or why not: RuleFailed if the person is one whom a way names.
func (g *Guard) DecideCertificate(s *Subject) Reason {
	switch {
	case s == nil || s.Verified == nil || s.Holder == nil || s.Request == nil || len(s.Verified.Facts) < 2:
		return Unusable
	case s.Verified.Depth() > g.depth:
		return TooDeep
	}
	reason := NotPerson
	for i := range g.certify {
		switch g.certify[i].decide(s) {
		case OK:
			return OK
		case RuleFailed:
			reason = RuleFailed
		}
	}
	return reason
}

func tlsVersion(r *Request) string {
	if r.TLS == nil {
		return ""
	}
	switch r.TLS.Version {
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(r.TLS.Version)
}

func tlsCipher(r *Request) string {
	if r.TLS == nil {
		return ""
	}
	return tls.CipherSuiteName(r.TLS.CipherSuite)
}

func tlsServerName(r *Request) string {
	if r.TLS == nil {
		return ""
	}
	return r.TLS.ServerName
}
