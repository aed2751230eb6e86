package front

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"github.com/postern-project/postern"
)

func init() {
	caddy.RegisterModule(Pool{})
	caddy.RegisterModule(Verifier{})
	caddy.RegisterModule(NoName{})
	caddy.RegisterModule(Issuer{})
}

// Pool gives a TLS connection policy the client CAs whose names it hints.
type Pool struct {
	Trust []string `json:"trust,omitempty"` // as in a require directive

	pool *x509.CertPool
}

// CaddyModule returns the Caddy module information.
func (Pool) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.ca_pool.source.postern", New: func() caddy.Module { return new(Pool) }}
}

// Provision reads the CAs.
func (p *Pool) Provision(caddy.Context) error {
	t, err := loadTrust(current(), p.Trust, nil)
	if err != nil {
		return err
	}
	p.pool = t.current.Load().Anchors()
	return nil
}

// CertPool returns the CAs.
func (p Pool) CertPool() *x509.CertPool { return p.pool }

// Verifier stands in a connection policy that asks for client certificates. It
// verifies nothing in the handshake, where a bad certificate would close public
// pages as well; the guards do. It gives back the session
// tickets which Caddy switches off.
type Verifier struct {
	Trust []string `json:"trust,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Verifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.client_auth.verifier.postern", New: func() caddy.Module { return new(Verifier) }}
}

// VerifyClientCertificate accepts whatever was shown.
func (Verifier) VerifyClientCertificate([][]byte, [][]*x509.Certificate) error { return nil }

// Provision finds the policy that this verifier stands in, which has just got
// its TLS configuration, and switches tickets on there.
func (v *Verifier) Provision(ctx caddy.Context) error {
	l := current()
	t, err := loadTrust(l, v.Trust, nil)
	if err != nil {
		return err
	}
	if app, err := ctx.AppIfConfigured("tls"); err == nil {
		if s := app.(*caddytls.TLS).SessionTickets; s != nil && s.Disabled {
			return nil
		}
	}
	for _, m := range ctx.Modules() {
		if app, ok := m.(*caddyhttp.App); ok {
			v.giveTickets(app, tickets{live: l, trust: t})
		}
	}
	return nil
}

func (v *Verifier) giveTickets(app *caddyhttp.App, t tickets) {
	for _, s := range app.Servers {
		for _, p := range s.TLSConnPolicies {
			if p.TLSConfig == nil || p.TLSConfig.WrapSession != nil || !v.standsIn(p) {
				continue
			}
			t.config = p.TLSConfig
			p.TLSConfig.SessionTicketsDisabled = false
			p.TLSConfig.WrapSession = t.wrap
			p.TLSConfig.UnwrapSession = t.unwrap
		}
	}
}

// standsIn reports whether p asks for certificates of the same CAs as v.
func (v *Verifier) standsIn(p *caddytls.ConnectionPolicy) bool {
	if p.ClientAuthentication == nil || p.TLSConfig.ClientAuth != tls.RequestClientCert {
		return false
	}
	want := verifierJSON(v.Trust)
	for _, raw := range p.ClientAuthentication.VerifiersRaw {
		if bytes.Equal(raw, want) {
			return true
		}
	}
	return false
}

// tickets binds session tickets to the host name and the client CAs that they
// were given under. A session that showed no certificate is never resumed: who
// has got one since can show it at once.
type tickets struct {
	live   *live
	trust  *trust
	config *tls.Config
}

const ticketLabel = "postern ticket 1"

func (t tickets) binding(serverName string) []byte {
	h := sha256.New()
	h.Write([]byte(ticketLabel))
	h.Write(t.trust.id[:])
	h.Write([]byte(serverName))
	return h.Sum(nil)
}

func (t tickets) wrap(cs tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	if len(cs.PeerCertificates) == 0 {
		return []byte(ticketLabel), nil // opens nothing
	}
	shown := sumOf(cs.PeerCertificates[:1])
	s.Extra = append(s.Extra, append(t.binding(cs.ServerName), shown[:]...))
	return t.config.EncryptTicket(cs, s)
}

func (t tickets) unwrap(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
	s, err := t.config.DecryptTicket(ticket, cs)
	if err != nil || s == nil {
		return nil, nil
	}
	binding := t.binding(cs.ServerName)
	for _, e := range s.Extra {
		shown, ok := bytes.CutPrefix(e, binding)
		if ok && len(shown) == sha256.Size && !t.live.tickets.refuses([sha256.Size]byte(shown)) {
			return s, nil
		}
	}
	return nil, nil
}

// refusedTickets remembers certificates that were refused, so that their
// holders are asked anew and can show another one.
type refusedTickets struct {
	mu  sync.Mutex
	set map[[sha256.Size]byte]bool
}

const maxRefused = 4096

func (r *refusedTickets) refuse(shown []*x509.Certificate) {
	key := sumOf(shown[:1])
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.set) >= maxRefused || r.set == nil {
		r.set = make(map[[sha256.Size]byte]bool)
	}
	r.set[key] = true
}

// allow forgets that a certificate was refused.
func (r *refusedTickets) allow(shown []*x509.Certificate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.set) > 0 {
		delete(r.set, sumOf(shown[:1]))
	}
}

func (r *refusedTickets) refuses(key [sha256.Size]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set[key]
}

// NoName matches handshakes in which the client names no host.
type NoName struct{}

// CaddyModule returns the Caddy module information.
func (NoName) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.handshake_match.postern_no_name", New: func() caddy.Module { return new(NoName) }}
}

// Match reports whether the handshake names no host.
func (NoName) Match(hello *tls.ClientHelloInfo) bool { return hello.ServerName == "" }

// Issuer gets server certificates from Postern's own CA. In a Caddyfile it is
// "issuer postern" in a tls directive, and "cert_issuer postern" for all sites.
type Issuer struct{ live *live }

// CaddyModule returns the Caddy module information.
func (Issuer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "tls.issuance.postern", New: func() caddy.Module { return new(Issuer) }}
}

// UnmarshalCaddyfile reads the word postern, which stands alone.
func (*Issuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Err("the issuer postern has no settings")
	}
	return nil
}

// Provision finds the CA.
func (i *Issuer) Provision(caddy.Context) error {
	if i.live = current(); i.live.Issue == nil {
		return postern.Errorf(postern.Invalid, "this server has no CA of Postern's to issue certificates")
	}
	return nil
}

// IssuerKey names the place where the certificates are kept.
func (*Issuer) IssuerKey() string { return "postern" }

// Issue gets a certificate for the names in the request.
func (i *Issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	chain, err := i.live.Issue(ctx, csr)
	if err != nil {
		refusals.say(csr, "Postern's CA issues none: "+err.Error())
		return nil, err
	}
	return &certmagic.IssuedCertificate{Certificate: chain}, nil
}

var (
	_ certmagic.Issuer                   = (*Issuer)(nil)
	_ caddytls.CA                        = Pool{}
	_ caddytls.ClientCertificateVerifier = Verifier{}
	_ caddytls.ConnectionMatcher         = NoName{}
)
