package front

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
)

func withoutHTTP3(protocols []string) []string {
	if len(protocols) == 0 {
		return []string{"h1", "h2"}
	}
	return slices.DeleteFunc(slices.Clone(protocols), func(p string) bool { return p == "h3" })
}

// servesTLS reports whether a server speaks TLS, explicitly or because Caddy
// will make it.
func servesTLS(s *caddyhttp.Server, app *caddyhttp.App) bool {
	if len(s.TLSConnPolicies) > 0 {
		return true
	}
	if s.AutoHTTPS != nil && s.AutoHTTPS.Disabled {
		return false
	}
	port := app.HTTPPort
	if port == 0 {
		port = caddyhttp.DefaultHTTPPort
	}
	for _, l := range s.Listen {
		a, err := caddy.ParseNetworkAddress(l)
		if err != nil || a.StartPort != uint(port) || a.EndPort != uint(port) {
			return !allSkipped(s)
		}
	}
	return false
}

// allSkipped reports whether every name on the server is kept from automatic
// HTTPS, as http:// addresses are.
func allSkipped(s *caddyhttp.Server) bool {
	if s.AutoHTTPS == nil || len(s.AutoHTTPS.Skip) == 0 {
		return false
	}
	for _, r := range s.Routes {
		hosts, err := hostsOf(r)
		if err != nil {
			return false
		}
		for _, h := range hosts {
			if !slices.Contains(s.AutoHTTPS.Skip, h) {
				return false
			}
		}
	}
	return true
}

// askForCertificates changes the server's TLS policies so that handshakes for
// guarded sites ask for certificates and others do not, also where a guarded
// site's wildcard covers another's name. A handshake that names no host asks for those
// of all guarded sites.
func askForCertificates(s *caddyhttp.Server, sites []guardedSite, names []string) error {
	if len(s.TLSConnPolicies) == 0 {
		s.TLSConnPolicies = caddytls.ConnectionPolicies{new(caddytls.ConnectionPolicy)}
	}
	asking := quietPolicies(s.TLSConnPolicies, sites, names)
	var all []string
	for _, site := range sites {
		trust := site.trust()
		all = append(all, trust...)
		quiet := site.quiet()
		if s.TrustedProxiesRaw != nil {
			quiet = nil // the connection's address is not the client's
		}
		if len(site.hosts) == 0 {
			if err := askOnAnyHost(s, trust, quiet); err != nil {
				return err
			}
			continue
		}
		for _, host := range site.hosts {
			p, err := requestCertificate(policyFor(s.TLSConnPolicies, host), trust)
			if err != nil {
				return err
			}
			sni := caddy.ModuleMap{"sni": caddyconfig.JSON([]string{host}, nil)}
			if len(quiet) > 0 {
				asking = append(asking, quietPolicy(policyFor(s.TLSConnPolicies, host), sni, quiet))
			}
			p.MatchersRaw = sni
			asking = append(asking, p)
		}
	}
	slices.Sort(all)
	p, err := requestCertificate(policyFor(s.TLSConnPolicies, ""), slices.Compact(all))
	if err != nil {
		return err
	}
	p.MatchersRaw = caddy.ModuleMap{"postern_no_name": json.RawMessage("{}")}
	for _, site := range sites {
		if p.DefaultSNI == "" && len(site.hosts) > 0 {
			p.DefaultSNI = site.hosts[0] // some certificate is better than none
		}
	}
	s.TLSConnPolicies = append(append(asking, s.TLSConnPolicies...), p)
	sortCatchAllLast(s.TLSConnPolicies)
	s.TLSConnPolicies = withUnreadable(s.TLSConnPolicies)
	return nil
}

// quietPolicies are the policies of names that are not guarded, though the
// wildcard of a guarded site covers them: they stand before it.
func quietPolicies(policies caddytls.ConnectionPolicies, sites []guardedSite,
	names []string,
) (quiet caddytls.ConnectionPolicies) {
	for _, name := range names {
		covered := false
		for _, site := range sites {
			if slices.Contains(site.hosts, name) {
				covered = false
				break
			}
			covered = covered || slices.ContainsFunc(site.hosts, func(h string) bool {
				return certmagic.MatchWildcard(name, h)
			})
		}
		if covered {
			p := *policyFor(policies, name)
			p.MatchersRaw = caddy.ModuleMap{"sni": caddyconfig.JSON([]string{name}, nil)}
			quiet = append(quiet, &p)
		}
	}
	return quiet
}

// trust returns the files of all client CAs that the site's guards trust; none if no
// guard asks for a certificate.
func (s guardedSite) trust() []string {
	var files []string
	if s.services && len(current().clientCAs()) > 0 {
		files = append(files, ownWord)
	}
	for _, r := range s.guard.Require {
		if !r.asks() {
			continue
		}
		if len(r.Trust) == 0 {
			files = append(files, ownWord)
		}
		files = append(files, r.Trust...)
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// askOnAnyHost makes the policies that match any host ask for a certificate, but for
// connections from quiet networks.
func askOnAnyHost(s *caddyhttp.Server, trust []string, quiet []netip.Prefix) error {
	var all caddytls.ConnectionPolicies
	for _, p := range s.TLSConnPolicies {
		if len(p.MatchersRaw) > 0 {
			all = append(all, p)
			continue
		}
		asking, err := requestCertificate(p, trust)
		if err != nil {
			return err
		}
		if len(quiet) > 0 {
			all = append(all, quietPolicy(p, nil, quiet))
		}
		all = append(all, asking)
	}
	s.TLSConnPolicies = all
	return nil
}

// quiet returns the networks from which each guard of the site that asks for a
// certificate lets all clients pass: clients there are not asked for one.
func (s guardedSite) quiet() (quiet []netip.Prefix) {
	if s.services {
		return nil
	}
	first := true
	for _, r := range s.guard.Require {
		if !r.asks() {
			continue
		}
		var open []netip.Prefix
		for _, w := range r.config(nil).Ways() {
			open = append(open, w.Networks()...)
		}
		if quiet = common(quiet, open); first {
			quiet, first = open, false
		}
	}
	return quiet
}

// common returns the networks that lie in both lists.
func common(a, b []netip.Prefix) (both []netip.Prefix) {
	for _, p := range a {
		for _, q := range b {
			switch {
			case !p.Overlaps(q):
			case p.Bits() > q.Bits():
				both = append(both, p)
			default:
				both = append(both, q)
			}
		}
	}
	return both
}

// quietPolicy is a copy of a policy for connections from some networks.
func quietPolicy(p *caddytls.ConnectionPolicy, matchers caddy.ModuleMap,
	networks []netip.Prefix,
) *caddytls.ConnectionPolicy {
	c := *p
	c.MatchersRaw = matchers
	return withMatcher(&c, "remote_ip", map[string]any{"ranges": networks})
}

// withMatcher returns a copy of a policy that has one matcher more.
func withMatcher(p *caddytls.ConnectionPolicy, name string, matcher any) *caddytls.ConnectionPolicy {
	c := *p
	c.MatchersRaw = maps.Clone(p.MatchersRaw)
	if c.MatchersRaw == nil {
		c.MatchersRaw = make(caddy.ModuleMap)
	}
	c.MatchersRaw[name] = caddyconfig.JSON(matcher, nil)
	return &c
}

// policyFor returns the policy that a handshake for host would get now.
func policyFor(policies caddytls.ConnectionPolicies, host string) *caddytls.ConnectionPolicy {
	for _, p := range policies {
		raw, named := p.MatchersRaw["sni"]
		if len(p.MatchersRaw) == 0 {
			return p
		}
		var names []string
		if !named || len(p.MatchersRaw) > 1 || json.Unmarshal(raw, &names) != nil {
			continue
		}
		for _, n := range names {
			if certmagic.MatchWildcard(strings.ToLower(host), strings.ToLower(n)) {
				return p
			}
		}
	}
	return new(caddytls.ConnectionPolicy)
}

// requestCertificate returns a copy of a policy that requests certificates of these CAs without
// requiring one.
func requestCertificate(p *caddytls.ConnectionPolicy, trust []string) (*caddytls.ConnectionPolicy, error) {
	c := *p
	if c.ClientAuthentication != nil {
		if slices.EqualFunc(c.ClientAuthentication.VerifiersRaw, []json.RawMessage{verifierJSON(trust)}, equalJSON) {
			return &c, nil
		}
		return nil,
			fmt.Errorf("require asks for client certificates itself: take client_auth out of the site's tls directive")
	}
	c.ClientAuthentication = &caddytls.ClientAuthentication{
		Mode:         "request",
		CARaw:        caddyconfig.JSONModuleObject(Pool{Trust: trust}, "provider", "postern", nil),
		VerifiersRaw: []json.RawMessage{verifierJSON(trust)},
	}
	return &c, nil
}

func equalJSON(a, b json.RawMessage) bool { return string(a) == string(b) }

func verifierJSON(trust []string) json.RawMessage {
	return caddyconfig.JSONModuleObject(Verifier{Trust: trust}, "verifier", "postern", nil)
}

// sortCatchAllLast keeps the order, but for policies without a matcher, which
// would hide those behind them.
func sortCatchAllLast(policies caddytls.ConnectionPolicies) {
	slices.SortStableFunc(policies, func(a, b *caddytls.ConnectionPolicy) int {
		return catchAll(a) - catchAll(b)
	})
}

func catchAll(p *caddytls.ConnectionPolicy) int {
	if len(p.MatchersRaw) == 0 {
		return 1
	}
	return 0
}
