package server

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-project/postern"
	"github.com/postern-project/postern/front"
	"github.com/postern-project/postern/internal/ca"
	"github.com/postern-project/postern/internal/portal"
)

// configureCA tells the authority what the configuration says of it.
func (s *server) configureCA(ctx context.Context, options front.App) error {
	if err := s.authority.SetPolicies(ctx, policiesOf(options.Profiles)); err != nil {
		return err
	}
	return s.authority.SetPortalURL(ctx, options.PlainURL())
}

// keepPolicies sets the profiles of the configuration that is served, after the next one
// could not be loaded.
func (s *server) keepPolicies(ctx context.Context) {
	if s.served == nil {
		return
	}
	if err := s.authority.SetPolicies(ctx, policiesOf(s.profiles)); err != nil {
		s.log.ErrorContext(ctx, "the profiles of certificates are those of the configuration that could not be loaded",
			slog.Any(postern.LogError, err))
	}
}

// policiesOf returns the profiles of a configuration in the authority's terms.
func policiesOf(profiles []front.Profile) []ca.Policy {
	var list []ca.Policy
	for _, p := range profiles {
		policy := ca.Policy{
			Profile: ca.Profile(p.Name), Text: p.Description,
			Validity: time.Duration(p.Validity), Max: time.Duration(p.Max),
			SignOnly: p.SignOnly, OIDs: p.Policies,
		}
		for _, k := range p.Keys {
			policy.Keys = append(policy.Keys, ca.Algorithm(k))
		}
		list = append(list, policy)
	}
	return list
}

// anonymous returns which clients may have ACME accounts of no person, as
// [acme.Config] wants it; nil: none.
func anonymous(c front.ACME) (func(from netip.Addr, names []string) bool, error) {
	if len(c.AnonymousFrom)+len(c.AnonymousNames) == 0 {
		return nil, nil
	}
	var networks []netip.Prefix
	for _, n := range c.AnonymousFrom {
		network, err := netip.ParsePrefix(n)
		if err != nil {
			return nil, postern.Errorf(postern.Invalid, "anonymous_from: %w", err).
				WithHint("write a network such as 10.0.0.0/8")
		}
		networks = append(networks, network)
	}
	var patterns []portal.Pattern
	for _, p := range c.AnonymousNames {
		pattern, err := portal.ParsePattern(p)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, pattern)
	}
	return func(from netip.Addr, names []string) bool {
		if len(networks) > 0 && !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(from) }) {
			return false
		}
		return len(patterns) == 0 || !slices.ContainsFunc(names, func(name string) bool {
			return !slices.ContainsFunc(patterns, func(p portal.Pattern) bool { return p.Match(name) })
		})
	}, nil
}
