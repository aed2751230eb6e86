package gate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-project/postern"
)

// Registry tells who holds Postern's own certificates and who people are. Its
// answers are the store's at that moment: an implementation does not keep them.
type Registry interface {
	// Certificate returns the credential with this serial number (lower-case
	// hex) and its holder. One that this issuer did not make is an error of code
	// postern.NotFound; one whose issuer was revoked is revoked, too.
	Certificate(ctx context.Context, serial string, issuer *x509.Certificate) (postern.Credential, postern.Person, error)
	// PersonByEmail returns the person with this address, or an error of code
	// postern.NotFound.
	PersonByEmail(ctx context.Context, email string) (postern.Person, error)
}

// Config is one guard: which paths it covers and who may pass. Persons and
// groups are alternatives to each other; every rule must hold besides. Without
// any of them every certificate that counts passes. With Anyone no certificate
// is asked for, and the rules, of which there must be one, look at the request
// alone.
type Config struct {
	Paths   []string // see CompilePaths
	Persons []string // names, or e-mail addresses
	Groups  []string
	Anyone  bool
	Rules   []string // see CompileRule
	Depth   int      // most CAs above the client's certificate; 0 means DefaultDepth
	Indexes []string // further names of a directory's index page
}

// Validate reports whether the guard can be built.
func (c Config) Validate() error {
	_, err := New(c)
	return err
}

// Guard decides who may pass one set of paths. It is safe for concurrent use.
type Guard struct {
	Paths   Paths
	persons []string
	groups  []string
	rules   []*Rule
	anyone  bool
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
	if c.Anyone && (len(c.Persons)+len(c.Groups)+c.Depth > 0 || len(c.Rules) == 0) {
		return nil, postern.Errorf(postern.Invalid, "a guard for anyone has rules, and neither persons nor groups nor a depth")
	}
	g := &Guard{Paths: paths, depth: c.Depth, anyone: c.Anyone}
	if g.depth == 0 {
		g.depth = DefaultDepth
	}
	for _, p := range c.Persons {
		if g.persons, err = appendPerson(g.persons, p); err != nil {
			return nil, err
		}
	}
	for _, name := range c.Groups {
		if !postern.ValidName(name) {
			return nil, postern.Errorf(postern.Invalid, "%q is not the name of a group", name)
		}
		g.groups = append(g.groups, name)
	}
	for _, source := range c.Rules {
		r, err := CompileRule(source)
		if err != nil {
			return nil, ruleError(err)
		}
		if g.anyone && r.certified {
			return nil, postern.Errorf(postern.Invalid, "a rule for anyone reads the request, not a certificate or a person: %s", r)
		}
		g.rules = append(g.rules, r)
		g.moving = g.moving || r.Moving()
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

// Anyone reports whether the guard asks for no certificate. Then a Subject
// needs its Request alone.
func (g *Guard) Anyone() bool { return g.anyone }

// Request is what a rule may read of a request.
type Request struct {
	Method, Path, Query, URI, Host, Proto string
	Header                                map[string][]string
	Address                               netip.Addr
	Time                                  time.Time
	TLS                                   *tls.ConnectionState
}

// Holder is the person behind a certificate. The zero Holder is nobody that the store
// knows.
type Holder struct{ postern.Person }

// Subject is what a guard decides about.
type Subject struct {
	Verified *Verified
	Holder   *Holder
	Request  *Request
}

// Hold finds who holds a verified certificate and whether it still counts.
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

// Decide reports whether the subject passes the guard, or why not.
func (g *Guard) Decide(s *Subject) Reason {
	switch {
	case g.anyone && s != nil && s.Request != nil:
	case s == nil || s.Verified == nil || s.Holder == nil || s.Request == nil || len(s.Verified.Facts) < 2:
		return Unusable
	case s.Verified.Depth() > g.depth:
		return TooDeep
	case !g.named(s):
		return NotPerson
	}
	if !g.rulesHold(s) {
		return RuleFailed
	}
	return OK
}

// rulesHold reports whether all rules hold, for each way in which servers may
// read the path: what opens /public must not open /public/../secret.
func (g *Guard) rulesHold(s *Subject) bool {
	var readings Readings
	if p := s.Request.Path; g.moving && !plain(p) {
		readings.addShapes(p)
	}
	if readings.n < 2 {
		return g.hold(s)
	}
	for _, p := range readings.all[:readings.n] {
		request := *s.Request
		request.Path = p
		if !g.hold(&Subject{Verified: s.Verified, Holder: s.Holder, Request: &request}) {
			return false
		}
	}
	return true
}

func (g *Guard) hold(s *Subject) bool {
	return !slices.ContainsFunc(g.rules, func(r *Rule) bool { return !r.holds(s) })
}

// named reports whether the holder is one of the persons, or in one of the groups,
// that the guard names. An address also matches a certificate of another CA
// that names this address alone.
func (g *Guard) named(s *Subject) bool {
	if len(g.persons) == 0 && len(g.groups) == 0 {
		return true
	}
	h := s.Holder
	for _, group := range g.groups {
		if slices.Contains(h.Groups, group) {
			return true
		}
	}
	for _, p := range g.persons {
		if h.Name != "" && (p == h.Name || p == h.Email) {
			return true
		}
	}
	if s.Verified.Own {
		return false
	}
	emails := s.Verified.Leaf().Emails()
	return len(emails) == 1 && slices.Contains(g.persons, emails[0])
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
