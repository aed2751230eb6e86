// Package portal is the self-service site. It verifies a person's e-mail address
// and issues a client certificate, with which the person then signs in to get
// certificates for servers, to renew, to revoke and to recover.
//
// A private key is made in the person's browser or on their computer and is never
// sent here. The site has no cookies and no passwords: the client certificate says
// who the person is. The program that mounts the handler verifies it.
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
	"github.com/postern-project/postern/internal/console"
)

// Config says how the portal behaves. The zero value works once Validate has
// filled in the defaults, but for URL, without which links lead nowhere.
type Config struct {
	URL           string          // address of the portal: https://id.example.com, no path
	Name          string          // of the organization, for people to read; default: URL's host
	SignUp        []string        // mail domains whose addresses may enrol without invitation; none by default
	RecoverByMail bool            // whether a message to the person's address is enough to recover
	LinkLife      time.Duration   // how long an invitation is valid; default 72 h
	ShortLinkLife time.Duration   // how long any other link is valid; default 1 h
	OrderLife     time.Duration   // how long an order stays open; default 7 days
	ProofLife     time.Duration   // how long the proof of a name by mail is valid; default 200 days
	Remind        []time.Duration // how long before expiry to remind; default 14 and 3 days
	NamePatterns  []string        // names that need no proof (see ParsePattern); none by default
}

// Validate fills in defaults and reports what is wrong.
func (c *Config) Validate() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" ||
		u.Fragment != "" || u.User != nil {
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
	}{
		{&c.LinkLife, 72 * time.Hour},
		{&c.ShortLinkLife, time.Hour},
		{&c.OrderLife, 7 * 24 * time.Hour},
		{&c.ProofLife, 200 * 24 * time.Hour},
	} {
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
var ErrLastAdministrator = errors.New("the change would leave no administrator")

// People stores people and their credentials.
//
// The event of a change is appended in the same transaction. A method that takes an
// actor writes nothing, and fails with Denied, if the actor's credential is not
// valid any more. All methods are safe for concurrent use.
type People interface {
	Person(ctx context.Context, name string) (postern.Person, error)         // NotFound
	PersonByEmail(ctx context.Context, email string) (postern.Person, error) // NotFound
	// Page returns at most n people behind a name, by name, but those who were removed.
	Page(ctx context.Context, after string, n int) ([]postern.Person, error)
	// Conflict if the name or the address is taken
	AddPerson(ctx context.Context, by postern.Actor, p postern.Person, e postern.Event) error
	// ChangePerson changes a person's address, full name and groups. It returns in
	// words what has changed, which is the event's Reason; "" and no event if
	// nothing has. If the address changes, unused links that were sent to the old one
	// become void, and the message that mail returns is queued. It fails with
	// Conflict if another person has the address, and with ErrLastAdministrator if
	// no administrator would be left. Both functions may be called again.
	ChangePerson(ctx context.Context, by postern.Actor, name string, change func(*postern.Person), e postern.Event,
		mail func(old postern.Person, what string) *Message) (string, error)
	SetPersonStatus(ctx context.Context, by postern.Actor, name string, s postern.PersonStatus, e postern.Event) error
	// SuspendedBy returns the name of the directory that has suspended a person; "" if an
	// administrator has, or nothing.
	SuspendedBy(ctx context.Context, name string) (directory string, err error)
	Credential(ctx context.Context, kind postern.CredentialKind, id string) (postern.Credential, error) // NotFound
	CredentialsOf(ctx context.Context, person string) ([]postern.Credential, error)
	SetCredentialStatus(ctx context.Context, by postern.Actor, kind postern.CredentialKind, id string,
		s postern.CredentialStatus, e postern.Event) error
}

// Certificate is one that the authority has issued.
type Certificate struct {
	Serial    string // lower-case hex
	Person    string // owner
	Label     string // the owner's name for the device; client certificates
	Server    bool
	Names     []string // DNS names and addresses; server certificates
	Subject   string   // for people to read
	Attested  string   // the YubiKey that attested the key, for people to read; "" if none did
	Key       string   // hash of its public key
	NotBefore time.Time
	NotAfter  time.Time
	Revoked   bool
	Chain     [][]byte // DER, leaf first, without the root; only from methods that return one certificate
}

// Valid reports whether the certificate is neither revoked nor expired.
func (c Certificate) Valid(now time.Time) bool { return !c.Revoked && now.Before(c.NotAfter) }

// Leaf returns the parsed certificate.
func (c Certificate) Leaf() (*x509.Certificate, error) {
	if len(c.Chain) == 0 {
		return nil, errors.New("the certificate's bytes were not loaded")
	}
	return x509.ParseCertificate(c.Chain[0])
}

// Request is a certificate request that was checked: its signature is valid and its
// key is strong.
type Request struct {
	CSR   []byte   // as it was received
	Names []string // DNS names and IP addresses in it
	Key   string   // hash of its public key, as in Certificate
	// Attestation is of a YubiKey that made the key: PEM, as it was received. It may be empty.
	Attestation []byte
}

// File is one file of a server's certificate layout.
type File struct {
	Path string `json:"path"` // relative
	Mode uint32 `json:"mode"` // permission bits
	Body string `json:"body"`
}

// KeyPlaceholder stands for the private key in a layout's files. The page, which has
// the key, puts it there.
const KeyPlaceholder = "-----POSTERN PRIVATE KEY GOES HERE-----\n"

// Layout is how one kind of server wants its files.
type Layout struct {
	Files   []File `json:"files"`
	Dir     string `json:"dir"`     // directory where the snippet expects them
	Snippet string `json:"snippet"` // its configuration, one of Files; may be empty
}

// Authority issues certificates.
//
// A certificate is durable, and on the timeline, before the method that issues
// it returns. When Revoke returns, the revocation takes effect on every server.
// Errors with a code other than Internal may be shown to the person. All methods
// are safe for concurrent use.
type Authority interface {
	ParseCSR(csr []byte) (Request, error)
	// IssueClient issues a certificate for the request's key to the person, who must
	// be active (Denied). This method, IssueServer and Renew do the Enrolment in the
	// transaction that records the certificate: either all of it happens, or nothing.
	// They fail with ErrLink if the link is not valid, with Conflict if the order is
	// done, and with Denied once the actor's credential is not valid any more.
	IssueClient(ctx context.Context, by postern.Actor, person, label string, r Request, e Enrolment) (Certificate,
		Enrolled, error)
	IssueServer(ctx context.Context, by postern.Actor, names []string, r Request, e Enrolment) (Certificate, Enrolled,
		error)
	// Renew issues a successor, for the same key if r is nil.
	Renew(ctx context.Context, by postern.Actor, serial string, r *Request, e Enrolment) (Certificate, Enrolled, error)
	Revoke(ctx context.Context, by postern.Actor, serial string, reason postern.RevocationReason) error
	Certificate(ctx context.Context, serial string) (Certificate, error) // NotFound
	CertificatesOf(ctx context.Context, person string) ([]Certificate, error)
	CertificatesOfKey(ctx context.Context, key string) ([]Certificate, error)
	Valid(ctx context.Context) ([]Certificate, error) // neither revoked nor expired
	Roots() []*x509.Certificate                       // that others are to trust, newest first
	// Anchors returns the roots and SSH CAs, and the valid certificates of those that
	// others have followed.
	Anchors(ctx context.Context) ([]Anchor, []Holder, error)
	// PermitsMail fails with Denied if no client certificate with that address can
	// be issued: a root's name constraints may permit some domains only.
	PermitsMail(email string) error
	// Layouts lists the kinds of server that Layout knows.
	Layouts() []string
	// Layout returns a certificate's files for one kind of server. The key is PEM, or
	// KeyPlaceholder; "" leaves the key's file out.
	Layout(ctx context.Context, kind string, c Certificate, key string) (Layout, error)
}

// Anchor is a root or an SSH CA.
type Anchor struct {
	ID, Name, Status string
	NotAfter         time.Time // zero for an SSH CA
	Certificates     int       // valid ones
}

// Holder is a valid certificate of a root or an SSH CA.
type Holder struct {
	CA, Serial, For, Person string
	NotAfter                time.Time
}

// Timeline is where events are read and written.
type Timeline interface {
	Append(ctx context.Context, e ...postern.Event) error
	EventsOf(ctx context.Context, person string, n int) ([]postern.Event, error) // newest first
}

// Deps are the parts that the portal uses. Identify and Admin are called for every
// request, and answer from the verified client certificate.
type Deps struct {
	Store     Store
	People    People
	Hosts     Hosts
	Authority Authority
	Timeline  Timeline
	Console   *console.Console                                 // what the administrators' pages show of the timeline
	Sessions  func(context.Context) ([]console.Session, error) // that are open, the oldest first
	Prober    Prober
	Keyring   Keyring  // nil: keys are listed, but cannot be added
	Passkeys  Passkeys // nil: there are none, since the portal's address has no name
	Mail      Mailer   // nil: nothing is sent; links are shown to the person who makes them
	Identify  func(*http.Request) (person, serial string, ok bool)
	Admin     func(*http.Request) bool
	// the person, and whether Identify returns false because they are suspended; nil: never
	Suspended func(*http.Request) (person string, ok bool)
	// Unavailable reports whether Identify returns false because whether the person's
	// certificate is valid is not known at the moment; nil: never
	Unavailable func(*http.Request) bool
	Address     func(*http.Request) netip.Addr // nil: RemoteAddr
	Log         *slog.Logger
}

// Portal is the site, an [http.Handler]. Run does its background work.
type Portal struct {
	Config
	Deps
	Links *Links

	web   *web
	feed  *console.Feed
	ended chan struct{} // closed by end
	end   func()
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
		return nil, postern.Errorf(postern.Internal, "a portal without Identify")
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
		if err := d.Store.StartNotifying(ctx); err != nil {
			return nil, err
		}
	}
	w, err := newWeb()
	if err != nil {
		return nil, err
	}
	p := &Portal{
		Config: c, Deps: d, web: w, csrf: csrf, now: time.Now,
		feed: console.NewFeed(d.Console), ended: make(chan struct{}),
		later: make(chan func(context.Context), 256),
		wake:  make(chan struct{}, 1),
	}
	p.end = sync.OnceFunc(func() { close(p.ended) })
	p.Links = &Links{
		Config: c, Store: d.Store, Mails: d.Mail != nil, Permits: d.Authority.PermitsMail,
		now: func() time.Time {
			return p.now()
		},
	}
	p.mux = p.routes()
	return p, nil
}

// ServeHTTP answers one request.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// Run does background work until ctx ends: work whose duration an answer must not
// reveal, mail, reminders, deleting what has expired, and reading the timeline for pages
// that show it as it is written, which end with ctx.
func (p *Portal) Run(ctx context.Context) {
	var g sync.WaitGroup
	g.Go(func() { p.runLater(ctx) })
	g.Go(func() { p.runMail(ctx) })
	g.Go(func() { p.runReminders(ctx) })
	g.Go(func() { p.feed.Run(ctx); p.end() })
	g.Wait()
}

// EndStreams ends the answers that would go on for as long as a page is open, so that a
// server that stops need not wait for them.
func (p *Portal) EndStreams() { p.end() }

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

// afterwards queues work whose duration an answer must not reveal. It returns false
// when too much is queued.
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
