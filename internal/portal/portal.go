// Package portal is the self-service site: it proves a person's e-mail
// address, hands out the client certificate that is then the key to everything
// else on the site, and lets its holder get certificates for servers, renew,
// revoke and recover.
//
// A private key is made in the person's browser or on their machine and never
// comes here. The site needs no cookie and no password: who asks is what the
// client certificate says, as verified by whoever mounts the handler.
package portal

//go:generate go run ./web/bundle

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-project/postern"
)

// Config says how the portal behaves. The zero value works once Validate has
// filled in the defaults, but for URL, without which links lead nowhere.
type Config struct {
	URL           string          // where the portal is reached: https://id.example.com, no path
	Name          string          // whose portal it is, for people to read; default: URL's host
	SignUp        []string        // mail domains whose addresses may enrol without invitation; none by default
	RecoverByMail bool            // whether a message to the person's address is enough to recover
	LinkLife      time.Duration   // how long an invitation counts; default 72 h
	ShortLinkLife time.Duration   // how long any other link counts; default 1 h
	OrderLife     time.Duration   // how long an order stays open; default 7 days
	ProofLife     time.Duration   // how long the proof of a name by mail counts; default 200 days
	Remind        []time.Duration // how long before expiry to remind; default 14 and 3 days
	NamePatterns  []string        // names that anybody may have without proof (see ParsePattern); none by default
}

// Validate fills in defaults and reports what is wrong.
func (c *Config) Validate() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return postern.Errorf(postern.Invalid, "the portal's address %q is not like https://id.example.com", c.URL)
	}
	c.URL = "https://" + u.Host
	if c.Name == "" {
		c.Name = u.Hostname()
	}
	for i, d := range c.SignUp {
		if _, err := postern.CleanEmail("x@" + d); err != nil {
			return postern.Errorf(postern.Invalid, "%q is not a mail domain", d)
		}
		c.SignUp[i] = strings.ToLower(d)
	}
	for _, p := range c.NamePatterns {
		if _, err := ParsePattern(p); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.LinkLife, 72 * time.Hour}, {&c.ShortLinkLife, time.Hour}, {&c.OrderLife, 7 * 24 * time.Hour}, {&c.ProofLife, 200 * 24 * time.Hour}} {
		if *d.field < 0 {
			return postern.Errorf(postern.Invalid, "a portal's time span is negative")
		}
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Remind == nil {
		c.Remind = []time.Duration{14 * 24 * time.Hour, 3 * 24 * time.Hour}
	}
	return nil
}

// ErrLastAdministrator says that a change would leave no administrator.
var ErrLastAdministrator = errors.New("the last administrator stays one")

// People is where persons are kept.
//
// An event that goes with a change is appended in the same transaction. A method
// that takes an actor writes nothing, and fails with Denied, once the actor's
// credential is not valid any more. All methods are safe for concurrent use.
type People interface {
	Person(ctx context.Context, name string) (postern.Person, error)                          // NotFound
	PersonByEmail(ctx context.Context, email string) (postern.Person, error)                  // NotFound
	All(ctx context.Context) ([]postern.Person, error)                                        // by name, but those who were removed
	AddPerson(ctx context.Context, by postern.Actor, p postern.Person, e postern.Event) error // Conflict if the name or the address is taken
	// ChangePerson changes a person's address, full name and groups, and returns
	// in words what has changed, which is the event's Reason; "" and no event if
	// nothing has. With the address it changes who links go to: unused ones that
	// went to the old address are void, and mail's message is queued. Conflict if
	// somebody else has the address, ErrLastAdministrator if nobody would be left.
	// Both functions may be called again.
	ChangePerson(ctx context.Context, by postern.Actor, name string, change func(*postern.Person), e postern.Event, mail func(old postern.Person, what string) *Message) (string, error)
	SetPersonStatus(ctx context.Context, by postern.Actor, name string, s postern.PersonStatus, e postern.Event) error
	Credential(ctx context.Context, kind postern.CredentialKind, id string) (postern.Credential, error) // NotFound
	CredentialsOf(ctx context.Context, person string) ([]postern.Credential, error)
	SetCredentialStatus(ctx context.Context, by postern.Actor, kind postern.CredentialKind, id string, s postern.CredentialStatus, e postern.Event) error
}

// Certificate is one that the authority has issued.
type Certificate struct {
	Serial    string // lower-case hex
	Person    string // owner
	Label     string // the owner's words; client certificates
	Server    bool
	Names     []string // DNS names and addresses; server certificates
	Subject   string   // for people to read
	Key       string   // hash of its public key
	NotBefore time.Time
	NotAfter  time.Time
	Revoked   bool
	Chain     [][]byte // DER, leaf first, without the root; only from methods that return one certificate
}

// Good reports whether the certificate counts at that time.
func (c Certificate) Good(now time.Time) bool { return !c.Revoked && now.Before(c.NotAfter) }

// Leaf returns the parsed certificate.
func (c Certificate) Leaf() (*x509.Certificate, error) {
	if len(c.Chain) == 0 {
		return nil, errors.New("a certificate without bytes")
	}
	return x509.ParseCertificate(c.Chain[0])
}

// Request is a certificate request that was read and found sound: its signature
// holds and its key is strong.
type Request struct {
	CSR   []byte   // as it was given
	Names []string // names and addresses that it asks for
	Key   string   // hash of its public key, as in Certificate
}

// File is one file of a server's certificate layout.
type File struct {
	Path string `json:"path"` // relative
	Mode uint32 `json:"mode"` // permission bits
	Body string `json:"body"`
}

// KeyPlaceholder stands for a private key that only its owner has, in the files
// that the page completes.
const KeyPlaceholder = "-----POSTERN PRIVATE KEY GOES HERE-----\n"

// Layout is how one kind of server wants its files.
type Layout struct {
	Files   []File `json:"files"`
	Dir     string `json:"dir"`     // where the snippet expects them
	Snippet string `json:"snippet"` // its configuration, one of Files; may be empty
}

// Authority issues certificates.
//
// A certificate is durable, and on the timeline, before the method that issues
// it returns; Revoke is seen by every server when it returns. Errors with a
// code other than Internal are fit to be shown. All methods are safe for
// concurrent use.
type Authority interface {
	ParseCSR(csr []byte) (Request, error)
	// IssueClient issues a certificate for the request's key to the person, who must
	// be active (Denied). This method, IssueServer and Renew do the Enrolment in the
	// transaction that records the certificate: either all of it happens, or nothing.
	// They fail with ErrLink if the link is not valid, with Conflict if the order is
	// done, and with Denied once the actor's credential is not valid any more.
	IssueClient(ctx context.Context, by postern.Actor, person, label string, r Request, e Enrolment) (Certificate, Enrolled, error)
	IssueServer(ctx context.Context, by postern.Actor, names []string, r Request, e Enrolment) (Certificate, Enrolled, error)
	// Renew issues a successor, for the same key if r is nil.
	Renew(ctx context.Context, by postern.Actor, serial string, r *Request, e Enrolment) (Certificate, Enrolled, error)
	Revoke(ctx context.Context, by postern.Actor, serial string, reason postern.RevocationReason) error
	Certificate(ctx context.Context, serial string) (Certificate, error) // NotFound
	CertificatesOf(ctx context.Context, person string) ([]Certificate, error)
	CertificatesOfKey(ctx context.Context, key string) ([]Certificate, error)
	Valid(ctx context.Context) ([]Certificate, error) // neither revoked nor expired
	Root() *x509.Certificate
	// PermitsMail reports, by a Denied error, whether a client certificate with
	// that address can be issued at all: a root may vouch for some domains only.
	PermitsMail(email string) error
	// Layouts lists the kinds of server that Layout knows.
	Layouts() []string
	// Layout lays a certificate out. The key is PEM, or a text that stands for
	// one; "" leaves the key's file out.
	Layout(ctx context.Context, kind string, c Certificate, key string) (Layout, error)
}

// Timeline is where events are read and written.
type Timeline interface {
	Append(ctx context.Context, e ...postern.Event) error
	EventsOf(ctx context.Context, person string, n int) ([]postern.Event, error) // newest first
}

// Deps is what the portal stands on. Identify and Admin are asked about every
// request: they say what the verified client certificate says.
type Deps struct {
	Store     Store
	People    People
	Authority Authority
	Timeline  Timeline
	Prober    Prober
	Keyring   Keyring // nil: keys are listed, and none are added
	Mail      Mailer  // nil: nothing is sent; links are shown to whoever made them
	Identify  func(*http.Request) (person, serial string, ok bool)
	Admin     func(*http.Request) bool
	Suspended func(*http.Request) bool       // whether Identify would say who, but that they are suspended; nil: never
	Address   func(*http.Request) netip.Addr // nil: RemoteAddr
	Log       *slog.Logger
}

// Portal is the site, an [http.Handler]. Run does its background work.
type Portal struct {
	Config
	Deps
	Links *Links

	web   *web
	csrf  []byte
	now   func() time.Time
	later chan func(context.Context)
	wake  chan struct{}
	mux   http.Handler
}

// New returns the portal. Nothing runs until Run and ServeHTTP are called.
func New(ctx context.Context, c Config, d Deps) (*Portal, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if d.Identify == nil {
		return nil, postern.Errorf(postern.Internal, "a portal that cannot tell who asks")
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Address == nil {
		d.Address = remoteAddress
	}
	csrf, err := d.Store.PortalKey(ctx)
	if err != nil {
		return nil, err
	}
	if d.Mail != nil {
		if err := d.Store.BeginTelling(ctx); err != nil {
			return nil, err
		}
	}
	w, err := newWeb()
	if err != nil {
		return nil, err
	}
	p := &Portal{
		Config: c, Deps: d, web: w, csrf: csrf, now: time.Now,
		later: make(chan func(context.Context), 256),
		wake:  make(chan struct{}, 1),
	}
	p.Links = &Links{Config: c, Store: d.Store, Mails: d.Mail != nil, Permits: d.Authority.PermitsMail, now: func() time.Time { return p.now() }}
	p.mux = p.routes()
	return p, nil
}

// ServeHTTP answers one request.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// Run does what happens in the background until ctx ends: answers that must
// not be timed, mail, reminders, forgetting what has expired.
func (p *Portal) Run(ctx context.Context) {
	var g sync.WaitGroup
	g.Go(func() { p.runLater(ctx) })
	g.Go(func() { p.runMail(ctx) })
	g.Go(func() { p.runReminders(ctx) })
	g.Wait()
}

func (p *Portal) runLater(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-p.later:
			f(ctx)
		}
	}
}

// afterwards queues work whose length must not show in the answer. It reports
// false when too much is queued.
func (p *Portal) afterwards(f func(context.Context)) bool {
	select {
	case p.later <- f:
		return true
	default:
		return false
	}
}

func remoteAddress(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// maySignUp reports whether the mail address belongs to a domain that may sign up.
func (c *Config) maySignUp(email string) bool {
	_, domain, _ := strings.Cut(email, "@")
	return slices.Contains(c.SignUp, domain)
}
