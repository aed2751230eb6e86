// Package acme is an ACME server (RFC 8555) over a certificate authority: orders
// for DNS names, wildcards and addresses, proved by http-01, dns-01 or
// tls-alpn-01 (RFC 8737, 8738), accounts that belong to people by external
// account binding, key roll-over, revocation, and renewal information (RFC
// 9773).
//
// An order with its authorizations and challenges is one row: each step of it
// is one durable write. Validation and issuance happen while the client waits,
// so that most need not poll.
package acme

import (
	"context"
	"crypto"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// Config says how the server answers. The zero value works at any host, for
// accounts that are bound to a person.
type Config struct {
	// URL is where the server is seen, without a slash at the end:
	// https://id.example.com/acme. "" takes the host from each request.
	URL string
	// Anonymous reports whether an account that no person stands for may act from an
	// address, and have certificates for these names if there are any. nil: none may.
	Anonymous func(from netip.Addr, names []string) bool
	// Address returns where a request comes from; nil is its connection's peer.
	Address func(*http.Request) netip.Addr
	// OrderLife is how long an order may take. Default 1 h, 5 min to 7 days.
	OrderLife time.Duration
	// MaxNames is how many names one certificate may carry. Default 100.
	MaxNames int
	// MaxPending is how many unfinished orders an account may have. Default 300.
	MaxPending int
	// Shared says that several servers answer for one store: the nonces of
	// accounts are then used up in the store.
	Shared bool
	// Terms is the address of the terms of service, or "".
	Terms string
	// Website is shown in the directory, or "".
	Website string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Validate reports what is wrong with the Config.
func (c Config) Validate() error {
	if c.URL != "" && (!strings.HasPrefix(c.URL, "https://") && !strings.HasPrefix(c.URL, "http://") ||
		strings.HasSuffix(c.URL, "/")) {
		return postern.Errorf(postern.Invalid, "ACME URL %q is not https://host/path", c.URL)
	}
	if c.OrderLife != 0 && (c.OrderLife < 5*time.Minute || c.OrderLife > 7*24*time.Hour) {
		return postern.Errorf(postern.Invalid, "an order lives 5 minutes to 7 days")
	}
	if c.MaxNames < 0 || c.MaxPending < 0 {
		return postern.Errorf(postern.Invalid, "a limit is not negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.OrderLife == 0 {
		c.OrderLife = time.Hour
	}
	if c.MaxNames == 0 {
		c.MaxNames = 100
	}
	if c.MaxPending == 0 {
		c.MaxPending = 300
	}
	if c.Anonymous == nil {
		c.Anonymous = func(netip.Addr, []string) bool { return false }
	}
	if c.Address == nil {
		c.Address = peerAddress
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Issuer is the certificate authority behind the server. Errors of code
// postern.Denied and postern.Invalid are returned to the client; others are logged.
type Issuer interface {
	// Permit reports whether certificates for these names may be issued at all.
	Permit(names []string) error
	// PermitKey returns an error for a key that must not be used, in a certificate or
	// as an account's key: one that is weak or was revoked for compromise.
	PermitKey(ctx context.Context, key crypto.PublicKey) error
	// Profiles returns the profiles that an order may name, each with what it is for.
	Profiles() map[string]string
	// Accept returns the terms of an order with its profile chosen. NotFound: there is
	// no such profile. Invalid: its certificates cannot be valid at that time.
	Accept(t Terms) (Terms, error)
	// Issue issues a certificate for the key of a request (DER), for the names given
	// and no others, under the terms of its order. The certificate, its order and the event become durable in one
	// transaction, or none does. The order is returned as it is then; with an
	// error of f.Change, as it was. An order to replace a certificate that another
	// has replaced is a Conflict.
	Issue(ctx context.Context, by postern.Actor, csr []byte, names []string, t Terms, f Finish) (Order, error)
	// Certificate returns a certificate that was issued.
	Certificate(ctx context.Context, serial string) (Certificate, error)
	// Revoke revokes a certificate for a reason (RFC 5280 section 5.3.1).
	// Conflict: it was revoked before.
	Revoke(ctx context.Context, by postern.Actor, serial string, reason postern.RevocationReason) error
}

// Finish says how an order ends with the certificate that is issued for it.
type Finish struct {
	Order string // ID
	// Change is given the order and its account as they are in the transaction that
	// records the certificate. It changes the order and returns the event that is
	// appended. It may be called more than once.
	Change func(o *Order, a Account, serial string) (postern.Event, error)
}

// Certificate is what the server needs to know of one that was issued.
type Certificate struct {
	Chain               []byte // PEM, leaf first
	DER                 []byte // of the leaf
	Key                 []byte // PKIX, DER, of the leaf
	AuthorityKeyID      []byte
	Names               []string
	NotBefore, NotAfter time.Time
	Revoked             bool
}

// Prober looks at names from outside. The errors are words for the client.
type Prober interface {
	File(ctx context.Context, host, path string, max int64) ([]byte, error)
	TXT(ctx context.Context, name string) ([]string, error)
	ALPN(ctx context.Context, host, serverName, protocol string) (leaf []byte, chosen string, err error)
}

// Server is the ACME server. It is safe for concurrent use.
type Server struct {
	cfg    Config
	store  Store
	ca     Issuer
	prober Prober
	log    *slog.Logger
	nonces *nonces
	mux    *http.ServeMux

	work sync.WaitGroup // validations under way
	stop context.CancelFunc
	ctx  context.Context
	busy chan struct{} // bounds validations under way
}

// maxValidations bounds how many names are looked at at once.
const maxValidations = 64

// New returns a server and takes up the validations that were under way when
// the last one stopped. Close it.
func New(ctx context.Context, cfg Config, store Store, ca Issuer, prober Prober, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg.withDefaults(), store: store, ca: ca, prober: prober, log: log,
		busy: make(chan struct{}, maxValidations),
	}
	var err error
	if s.nonces, err = newNonces(ctx, s.cfg, store); err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.routes()
	s.work.Go(func() { s.resume(s.ctx) })
	return s, nil
}

// Close ends the validations under way and waits for them. They are taken up
// again by the next server.
func (s *Server) Close() error {
	s.stop()
	s.work.Wait()
	return nil
}

// identifierIP reports whether a name is an address, and which.
func identifierIP(name string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(name)
	return a, err == nil && a.Zone() == ""
}
