package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/acme"
	"github.com/postern-project/postern/ca"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/portal"
	"github.com/postern-project/postern/reach"
	"github.com/postern-project/postern/relay"
)

// house is the services of the other rooms that a server runs, and what they do
// in the background.
type house struct {
	*server
	fixed []front.Service // the same under every configuration

	options *front.App // that the portal was made with
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newHouse(s *server) (*house, error) {
	h := &house{server: s, stop: func() {}}
	revocation := s.authority.Handler(s.log)
	for _, prefix := range []string{"/crl/", "/ca/", "/ssh/krl", "/ocsp"} {
		h.fixed = append(h.fixed, front.Service{Prefix: prefix, Handler: revocation, PlainHTTP: true})
		if base := s.authority.URLPath(); base != "" {
			h.fixed = append(h.fixed, front.Service{Prefix: base + prefix, Handler: revocation, PlainHTTP: true})
		}
	}
	h.fixed = append(h.fixed, front.Service{Prefix: "/ssh/", Handler: newSSHSignHandler(s.state, s.authority, s.oneTime, identified, s.log)})
	h.fixed = append(h.fixed, front.Service{Prefix: "/wsapi/", Handler: s.oneTime.Service})
	h.fixed = append(h.fixed, front.Service{Prefix: "/api/", Handler: http.NewCrossOriginProtection().Handler(ca.NewAPI(ca.APIConfig{Groups: []string{adminGroup}}, s.authority, s.log))})
	events, err := newRemoteEvents(s.state, s.log)
	if err != nil {
		return nil, err
	}
	h.fixed = append(h.fixed, front.Service{Prefix: relay.Path, Handler: events})
	return h, nil
}

// adminGroup is the group of those who may do everything.
const adminGroup = "admin"

// close ends what runs in the background.
func (h *house) close() {
	h.stop()
	h.running.Wait()
}

// mount serves what the options ask for, from the next configuration on.
func (h *house) mount(ctx context.Context, options front.App) error {
	if h.options != nil && h.options.Mail == options.Mail && reflect.DeepEqual(h.options.Portal, options.Portal) {
		return nil
	}
	h.close()
	services, url := h.fixed, ""
	if options.Portal != nil {
		look, err := reachOf(options.Portal.PrivateProofs)
		if err != nil {
			return err
		}
		p, err := h.newPortal(ctx, options, look)
		if err != nil {
			return err
		}
		url = options.Portal.URL() + "/"
		orders, err := newACME(ctx, h.state, h.authority, acme.Config{Website: url, Shared: h.state.Store.Shared()}, look, h.log)
		if err != nil {
			return err
		}
		services = append(services[:len(services):len(services)],
			front.Service{Prefix: "/", Handler: p}, front.Service{Prefix: acme.Prefix + "/", Handler: orders})
		background, stop := context.WithCancel(context.WithoutCancel(ctx))
		h.stop = stop
		h.running.Go(func() { p.Run(background) })
		h.running.Go(func() {
			<-background.Done()
			orders.Close()
		})
	}
	front.Mount(url, services...)
	h.options = &options
	return nil
}

// reachOf says where proofs of names are looked for, besides the public
// Internet.
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

func (h *house) newPortal(ctx context.Context, o front.App, look reach.Config) (*portal.Portal, error) {
	c := portal.Config{
		URL: o.Portal.URL(), Name: o.Portal.Name, SignUp: o.Portal.SignUp, RecoverByMail: o.Portal.RecoverByMail, NamePatterns: o.Portal.Names,
	}
	admins := o.Portal.Admins
	if len(admins) == 0 {
		admins = []string{adminGroup}
	}
	return newPortal(ctx, h.state.Store, h.authority, portalOptions{
		Config: c, Reach: look, Mail: o.Mail, Address: front.Address,
		Keyring: portalKeyring{h.state, h.oneTime.Keys, h.oneTime.Checker, h.authority},
		Log:     h.log.With(slog.String(postern.LogKind, "portal")),
		Identify: func(r *http.Request) (string, string, bool) {
			who, serial, ok := front.Identify(r)
			return who.Name, serial, ok
		},
		Suspended: front.Suspended,
		Admin: func(r *http.Request) bool {
			who, _, ok := front.Identify(r)
			return ok && slices.ContainsFunc(admins, func(g string) bool { return slices.Contains(who.Groups, g) })
		},
	})
}

// issueSite issues the certificate of a site that no public CA can serve.
func (s *server) issueSite(ctx context.Context, csr *x509.CertificateRequest) ([]byte, error) {
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})
	issued, err := s.authority.SignCSR(ctx, block, ca.SignRequest{Profile: ca.ProfileServer})
	if err != nil {
		return nil, err
	}
	return issued.PEM(), nil
}
