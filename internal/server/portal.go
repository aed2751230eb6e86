package server

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-project/postern/internal/people"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/console"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/store"
	"github.com/postern-project/postern/timeline"
)

// portalOptions is what the portal's service needs besides the state.
type portalOptions struct {
	Config portal.Config
	Reach  reach.Config // for fetching the proofs of names
	Mail   string       // smtp://…, or "" for none
	// Identify returns the person who sent a request, as verified. Admin reports
	// whether that person may see the administrators' pages.
	Identify func(*http.Request) (person, serial string, ok bool)
	Admin    func(*http.Request) bool
	Admins   []string // the groups of administrators; none are those of people.AdminGroup
	// Suspended returns the person, and whether Identify returns false because they
	// are suspended; nil: never.
	Suspended func(*http.Request) (person string, ok bool)
	// Unavailable reports whether Identify returns false because whether the person's
	// certificate is valid is not known at the moment; nil: never.
	Unavailable func(*http.Request) bool
	Address     func(*http.Request) netip.Addr // nil: RemoteAddr
	Keyring     portal.Keyring                 // nil: none
	Log         *slog.Logger
}

// newPortal returns the portal over the state and the authority, and stores its
// configuration for commands that make links. The caller serves it, and calls Run.
func newPortal(ctx context.Context, db *store.DB, a *ca.Authority, o portalOptions) (*portal.Portal, error) {
	if len(o.Admins) == 0 {
		o.Admins = []string{people.AdminGroup}
	}
	s := db.Portal()
	prober, err := reach.New(o.Reach)
	if err != nil {
		return nil, err
	}
	deps := portal.Deps{
		Store: s, People: people.Pages{Portal: s, Admins: o.Admins}, Authority: portalAuthority{a, s},
		Hosts: portalHosts{db, a}, Timeline: portalTimeline{db.Timeline()},
		Console:  &console.Console{Log: db.Timeline().Recent()},
		Sessions: openSessions(db), Prober: prober, Keyring: o.Keyring,
		Identify: o.Identify, Admin: o.Admin, Suspended: o.Suspended, Unavailable: o.Unavailable, Address: o.Address,
		Log: o.Log,
	}
	if err := o.Config.Validate(); err != nil {
		return nil, err
	}
	if o.Mail != "" {
		m, err := portal.NewSMTP(o.Mail, portalHost(o.Config.URL))
		if err != nil {
			return nil, err
		}
		deps.Mail = m
	}
	if deps.Passkeys, err = portalPasskeys(ctx, db, o.Config); err != nil {
		return nil, err
	}
	p, err := portal.New(ctx, o.Config, deps)
	if err != nil {
		return nil, err
	}
	return p, people.RememberPortal(ctx, db, p.Config, o.Mail != "", o.Admins)
}

func portalHost(url string) string {
	host := strings.TrimPrefix(url, "https://")
	if ap, err := netip.ParseAddrPort(host); err == nil {
		return ap.Addr().String()
	}
	host, _, _ = strings.Cut(host, ":")
	return host
}

// portalTimeline reads and writes the timeline for the portal.
type portalTimeline struct{ store.Timeline }

// EventsOf returns a person's last events, newest first.
func (t portalTimeline) EventsOf(ctx context.Context, person string, n int) ([]postern.Event, error) {
	events, err := t.Events(ctx, timeline.Filter{Person: person, Limit: n, Last: true})
	for i, j := 0, len(events)-1; i < j; i, j = i+1, j-1 {
		events[i], events[j] = events[j], events[i]
	}
	return events, err
}

// portalAuthority adapts the certificate authority to the portal. It records each
// certificate with its enrolment.
type portalAuthority struct {
	a     *ca.Authority
	store store.Portal
}

// ParseCSR reads and checks a certificate request.
func (p portalAuthority) ParseCSR(csr []byte) (portal.Request, error) {
	c, err := ca.ParseCSR(csr)
	if err != nil {
		return portal.Request{}, err
	}
	key, err := ca.KeyHash(c.PublicKey)
	return portal.Request{CSR: csr, Names: c.Names, Key: key}, err
}

// IssueClient issues a certificate to a person.
func (p portalAuthority) IssueClient(ctx context.Context, by postern.Actor, person, label string, r portal.Request,
	e portal.Enrolment,
) (portal.Certificate, portal.Enrolled, error) {
	i, err := p.a.PrepareCSR(ctx, r.CSR, ca.SignRequest{
		Profile: ca.ProfileClient, Person: person, Label: label, Attestation: r.Attestation,
		By: by,
	})
	return p.enrol(ctx, i, e, err)
}

// IssueServer issues a certificate for names that were proved.
func (p portalAuthority) IssueServer(ctx context.Context, by postern.Actor, names []string, r portal.Request,
	e portal.Enrolment,
) (portal.Certificate, portal.Enrolled, error) {
	i, err := p.a.PrepareCSR(ctx, r.CSR, ca.SignRequest{
		Profile: ca.ProfileServer, Names: names, Proved: names,
		By: by,
	})
	return p.enrol(ctx, i, e, err)
}

// Renew issues a successor.
func (p portalAuthority) Renew(ctx context.Context, by postern.Actor, serial string, r *portal.Request,
	e portal.Enrolment,
) (portal.Certificate, portal.Enrolled, error) {
	req := ca.RenewRequest{SameKey: r == nil, By: by}
	if r != nil {
		c, err := ca.ParseCSR(r.CSR)
		if err != nil {
			return portal.Certificate{}, portal.Enrolled{}, err
		}
		req.Key = c.PublicKey
	}
	i, err := p.a.PrepareRenewal(ctx, serial, req)
	return p.enrol(ctx, i, e, err)
}

// enrol records an issued certificate together with an enrolment.
func (p portalAuthority) enrol(ctx context.Context, i *ca.Issued, e portal.Enrolment, err error) (portal.Certificate,
	portal.Enrolled, error,
) {
	if err != nil {
		return portal.Certificate{}, portal.Enrolled{}, err
	}
	done, err := p.store.Enrol(ctx, i.By, i.Certificate, i.Event, e)
	if err != nil {
		return portal.Certificate{}, done, err
	}
	return portalCertificate(i), done, nil
}

// Revoke revokes a certificate.
func (p portalAuthority) Revoke(ctx context.Context, by postern.Actor, serial string,
	reason postern.RevocationReason,
) error {
	return p.a.Revoke(ctx, serial, reason, by)
}

// Certificate returns one certificate with its chain.
func (p portalAuthority) Certificate(ctx context.Context, serial string) (portal.Certificate, error) {
	i, err := p.a.Load(ctx, serial)
	return portalCertificate(i), err
}

// CertificatesOf returns a person's certificates, newest first.
func (p portalAuthority) CertificatesOf(ctx context.Context, person string) ([]portal.Certificate, error) {
	return p.list(ctx, ca.Filter{Person: person})
}

// CertificatesOfKey returns the certificates of one key.
func (p portalAuthority) CertificatesOfKey(ctx context.Context, key string) ([]portal.Certificate, error) {
	return p.list(ctx, ca.Filter{Key: key})
}

// Valid returns the certificates that are neither revoked nor expired.
func (p portalAuthority) Valid(ctx context.Context) ([]portal.Certificate, error) {
	return p.list(ctx, ca.Filter{Valid: time.Now()})
}

func (p portalAuthority) list(ctx context.Context, f ca.Filter) ([]portal.Certificate, error) {
	certs, err := p.a.Certificates(ctx, f)
	var list []portal.Certificate
	for _, c := range certs {
		if c.Profile == ca.ProfileClient || c.Profile == ca.ProfileServer {
			list = append(list, portalEntry(c))
		}
	}
	return list, err
}

// PermitsMail fails if the root's name constraints do not permit the address.
func (p portalAuthority) PermitsMail(email string) error { return p.a.PermitsMail(email) }

// Roots returns the root certificates, newest first.
func (p portalAuthority) Roots() []*x509.Certificate { return p.a.Roots() }

// Anchors returns the roots and SSH CAs, and the certificates that keep one from being
// retired.
func (p portalAuthority) Anchors(ctx context.Context) (list []portal.Anchor, left []portal.Holder, err error) {
	anchors, err := p.a.Anchors(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range anchors {
		list = append(list, portal.Anchor{
			ID: a.ID, Name: a.Name, Status: a.Status, NotAfter: a.NotAfter, Certificates: a.Certificates,
		})
	}
	holders, err := p.a.Holders(ctx, "")
	for _, h := range holders {
		left = append(left, portal.Holder{
			CA: h.CA, Serial: h.Serial, For: h.For, Person: h.Person,
			NotAfter: h.NotAfter,
		})
	}
	return list, left, err
}

func portalEntry(c ca.Certificate) portal.Certificate {
	return portal.Certificate{
		Serial: c.Serial, Person: c.Person, Label: c.Label, Server: c.Profile == ca.ProfileServer, Names: c.Names,
		Subject: c.Subject, Key: c.Key,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: !c.Revoked.IsZero(),
	}
}

func portalCertificate(i *ca.Issued) portal.Certificate {
	if i == nil {
		return portal.Certificate{}
	}
	c := portalEntry(i.Certificate)
	c.Attested = i.Attested()
	c.Chain = [][]byte{i.Leaf.Raw}
	for _, up := range i.Chain {
		c.Chain = append(c.Chain, up.Raw)
	}
	return c
}
