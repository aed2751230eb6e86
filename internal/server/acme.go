package server

import (
	"context"
	"log/slog"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/acme"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/reach"
	"github.com/postern-project/postern/internal/state"
	"github.com/postern-project/postern/internal/store"
)

// newACME returns the ACME server over the authority. Close it before the
// store.
func newACME(ctx context.Context, st *state.State, authority *ca.Authority, cfg acme.Config, look reach.Config,
	log *slog.Logger,
) (*acme.Server, error) {
	prober, err := reach.New(look)
	if err != nil {
		return nil, err
	}
	return acme.New(ctx, cfg, st.Store.ACME(), acmeIssuer{authority, st.Store}, prober, log)
}

// newOrders returns the ACME server that a configuration describes.
func (h *services) newOrders(ctx context.Context, o front.App, look reach.Config) (*acme.Server, error) {
	permit, err := anonymous(o.ACME)
	if err != nil {
		return nil, err
	}
	cfg := acme.Config{
		Website: o.Portal.URL() + "/", Shared: h.state.Store.Shared(), Anonymous: permit,
		Address: front.Address,
	}
	return newACME(ctx, h.state, h.authority, cfg, look, h.log)
}

// acmeIssuer adapts the authority to the ACME server.
type acmeIssuer struct {
	*ca.Authority
	store *store.DB
}

// Permit implements [acme.Issuer].
func (i acmeIssuer) Permit(names []string) error { return i.Permits(names) }

// Profiles implements [acme.Issuer].
func (i acmeIssuer) Profiles() map[string]string {
	profiles := make(map[string]string)
	for _, p := range i.Policies() {
		if p.ForServers() {
			profiles[string(p.Profile)] = p.Text
		}
	}
	return profiles
}

// Accept implements [acme.Issuer].
func (i acmeIssuer) Accept(t acme.Terms) (acme.Terms, error) {
	profile, err := i.Authority.Accept(ca.Profile(t.Profile), periodOf(t))
	t.Profile = string(profile)
	return t, err
}

func periodOf(t acme.Terms) ca.Period { return ca.Period{NotBefore: t.NotBefore, NotAfter: t.NotAfter} }

// Issue implements [acme.Issuer].
func (i acmeIssuer) Issue(ctx context.Context, by postern.Actor, csr []byte, names []string, t acme.Terms,
	f acme.Finish,
) (acme.Order, error) {
	c, err := i.PrepareCSR(ctx, csr, ca.SignRequest{
		Profile: ca.Profile(t.Profile), Names: names, Proved: names,
		Period: periodOf(t), By: by,
	})
	if err != nil {
		return acme.Order{}, err
	}
	return i.store.ACME().FinishOrder(ctx, by, c.Certificate, c.Event, f)
}

// Certificate implements [acme.Issuer].
func (i acmeIssuer) Certificate(ctx context.Context, serial string) (acme.Certificate, error) {
	c, err := i.Load(ctx, serial)
	if err != nil {
		return acme.Certificate{}, err
	}
	// an intermediate or a client certificate, which ACME may neither return nor revoke
	if c.Profile != ca.ProfileServer {
		return acme.Certificate{}, postern.Errorf(postern.NotFound, "no server certificate %s was issued here", serial)
	}
	return acme.Certificate{
		Chain: c.PEM(), DER: c.DER, AuthorityKeyID: c.Leaf.AuthorityKeyId, Names: c.Names,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Revoked: !c.Revoked.IsZero(),
	}, nil
}

// Revoke implements [acme.Issuer].
func (i acmeIssuer) Revoke(ctx context.Context, by postern.Actor, serial string,
	reason postern.RevocationReason,
) error {
	return i.Authority.Revoke(ctx, serial, reason, by)
}

// ValidReason implements [acme.Issuer].
func (i acmeIssuer) ValidReason(reason int) bool { return postern.RevocationReason(reason).Valid() }
