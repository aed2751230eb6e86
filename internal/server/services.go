package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/host"
	"github.com/postern-project/postern/internal/people"
	"github.com/postern-project/postern/internal/portal"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/relay"
	"github.com/postern-project/postern/internal/sshd/remote"
)

// services are the other packages' services that a server runs, with their background
// work.
type services struct {
	*server
	fixed      []front.Service // the same under every configuration
	revocation http.Handler    // OCSP and CRLs

	now *configured // those that are served now
}

// configured are the services that a configuration's options ask for.
type configured struct {
	options front.App
	portal  string // its address
	list    []front.Service
	run     []func(context.Context) // in the background, each until its context ends
	streams func()                  // ends answers that go on for as long as a page is open; nil: nothing
	end     func()                  // closes what was made for them; nil: nothing

	stop    context.CancelFunc
	running sync.WaitGroup
}

func newServices(s *server) (*services, error) {
	h := &services{server: s}
	h.revocation = s.authority.Handler(s.log)
	h.fixed = append(h.fixed, front.Service{
		Prefix:  "/ssh/",
		Handler: whileKnown(NewSSHSignHandler(s.state, s.authority, s.oneTime, identified, s.log)),
	})
	h.fixed = append(h.fixed, front.Service{Prefix: "/wsapi/", Handler: s.oneTime.Service})
	hosts := newHostAPI(s.state.Store, s.authority, s.log)
	events, err := newRemoteEvents(s.state, s.log)
	if err != nil {
		return nil, err
	}
	logins := newHostLogins(s.state, s.oneTime, s.log)
	h.fixed = append(h.fixed, front.Service{Prefix: relay.Path, Handler: whileKnown(s.signed(events))},
		front.Service{Prefix: host.Prefix, Handler: hosts},
		front.Service{Prefix: remote.Prefix, Handler: whileKnown(s.signed(logins))})
	return h, nil
}

// signed has a service's replies signed for the hosts that want it.
func (s *server) signed(service http.Handler) http.Handler {
	return host.SignReplies(service, func(r *http.Request) (string, error) {
		source, err := sourceOf(r, s.state.Store.Hosts())
		return source.Host, err
	}, s.authority.SignByDelegate, s.log)
}

// whileKnown answers that a service is unavailable while it is not known whether the
// certificate that the client shows is valid: the service would take the client for one
// without.
func whileKnown(service http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !front.Unavailable(r) {
			service.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"error":"whether the certificate is valid cannot be checked at the moment"}`+"\n")
	})
}

// admins returns the groups of administrators, who may see the portal's administrators'
// pages and use the signing API.
func admins(o front.App) []string {
	if o.Portal == nil || len(o.Portal.Admins) == 0 {
		return []string{people.AdminGroup}
	}
	return o.Portal.Admins
}

// endStreams ends answers that go on for as long as a page is open.
func (h *services) endStreams() {
	if h.now != nil && h.now.streams != nil {
		h.now.streams()
	}
}

// close ends what runs in the background.
func (h *services) close() {
	if h.now != nil {
		h.now.close()
	}
}

// prepare makes the services that the options ask for, or returns those that are served
// if the options are the same. New ones run after adopt.
func (h *services) prepare(ctx context.Context, options front.App) (*configured, error) {
	if h.now != nil && h.now.options.Mail == options.Mail &&
		reflect.DeepEqual(h.now.options.Portal, options.Portal) && reflect.DeepEqual(h.now.options.ACME,
		options.ACME) &&
		reflect.DeepEqual(h.now.options.Directory, options.Directory) &&
		reflect.DeepEqual(h.now.options.Alerts, options.Alerts) && h.now.options.Timeline == nil &&
		options.Timeline == nil { // whose policy is a file that may have changed
		return h.now, nil
	}
	sign := ca.NewAPI(ca.APIConfig{Groups: admins(options)}, h.authority, h.log)
	s := &configured{options: options, list: append(h.fixed[:len(h.fixed):len(h.fixed)],
		front.Service{Prefix: "/api/", Handler: whileKnown(http.NewCrossOriginProtection().Handler(sign))})}
	from, err := directoryOf(options.Directory)
	if err != nil {
		return nil, err
	}
	alerts, err := h.newReporter(options)
	if err != nil {
		return nil, err
	}
	s.run = append(s.run, func(ctx context.Context) { h.followDirectory(ctx, from) }, alerts.Run)
	if err := h.serveTimeline(s, options.Timeline); err != nil {
		return nil, err
	}
	if options.Portal == nil {
		return s, nil
	}
	look, err := reachOf(options.Portal.PrivateProofs)
	if err != nil {
		return nil, err
	}
	p, err := h.newPortal(ctx, options, look)
	if err != nil {
		return nil, err
	}
	s.portal = options.Portal.URL() + "/"
	orders, err := h.newOrders(ctx, options, look)
	if err != nil {
		return nil, err
	}
	s.list = append(s.list, front.Service{Prefix: "/", Handler: p},
		front.Service{Prefix: acme.Prefix + "/", Handler: orders})
	s.run = append(s.run, p.Run)
	s.streams = p.EndStreams
	s.end = func() { orders.Close() }
	return s, nil
}

// mount sets the services of the next configuration that is loaded, with OCSP and CRLs at
// the paths that certificates name now.
func (h *services) mount(s *configured) {
	list := s.list[:len(s.list):len(s.list)]
	bases := []string{""}
	if base := h.authority.URLPath(); base != "" {
		bases = append(bases, base)
	}
	for _, base := range bases {
		for _, prefix := range []string{"/crl/", "/ca/", "/ssh/krl", "/ocsp"} {
			list = append(list, front.Service{Prefix: base + prefix, Handler: h.revocation, PlainHTTP: true})
		}
	}
	front.Mount(s.portal, list...)
}

// adopt runs the services, in place of those of the previous configuration, which it
// ends.
func (h *services) adopt(next *configured) {
	if next == h.now {
		return
	}
	h.close()
	h.now = next
	var ctx context.Context
	ctx, next.stop = context.WithCancel(context.Background())
	for _, run := range next.run {
		next.running.Go(func() { run(ctx) })
	}
}

// keep keeps the services that are served, after the next configuration could not be
// loaded.
func (h *services) keep(next *configured) {
	if next == h.now {
		return
	}
	next.close()
	if h.now != nil {
		h.mount(h.now)
	}
}

// close ends what runs in the background, and what was made for the services.
func (s *configured) close() {
	if s.stop != nil {
		s.stop()
	}
	s.running.Wait()
	if s.end != nil {
		s.end()
	}
}

// reachOf returns from which private addresses proofs of names are fetched.
func reachOf(private []string) (reach.Config, error) {
	var c reach.Config
	for _, n := range private {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return c, postern.Errorf(postern.Invalid, "private_proofs: %w", err)
		}
		c.Private = append(c.Private, p)
	}
	return c, nil
}

func (h *services) newPortal(ctx context.Context, o front.App, look reach.Config) (*portal.Portal, error) {
	c := portal.Config{
		URL: o.Portal.URL(), Name: o.Portal.Name, SignUp: o.Portal.SignUp, RecoverByMail: o.Portal.RecoverByMail,
		NamePatterns: o.Portal.Names,
	}
	groups := admins(o)
	return newPortal(ctx, h.state.Store, h.authority, portalOptions{
		Config: c, Reach: look, Mail: o.Mail, Admins: groups, Address: front.Address,
		Keyring: portalKeyring{h.state, h.oneTime.Keys, h.oneTime.Checker, h.authority},
		Log:     h.log.With(slog.String(postern.LogKind, "portal")),
		Identify: func(r *http.Request) (string, string, bool) {
			who, serial, ok := front.Identify(r)
			return who.Name, serial, ok
		},
		Suspended: front.Suspended, Unavailable: front.Unavailable,
		Admin: func(r *http.Request) bool {
			who, _, ok := front.Identify(r)
			return ok && slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(who.Groups, g) })
		},
	})
}

// issueSite issues the certificate of a site that no public CA can serve.
func (s *server) issueSite(ctx context.Context, csr *x509.CertificateRequest) ([]byte, error) {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})
	issued, err := s.authority.IssueCSR(ctx, block, ca.SignRequest{Profile: ca.ProfileServer})
	if err != nil {
		return nil, err
	}
	return issued.PEM(), nil
}
